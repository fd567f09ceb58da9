"""The callback of TensorRT for the progress of a build.

Its base class is that of the library, which is chosen when a build begins.
"""

from typing import Any

from service.progress import Progress, ReportProgress


def build_monitor(module: Any, phase: str, progress: ReportProgress) -> Any:
    """An IProgressMonitor: the outermost phase of a build is progress; inner ones are detail."""

    class BuildMonitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._steps[phase_name] = num_steps
                progress(Progress(phase, 0, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                progress(Progress(phase, step + 1, self._steps[phase_name]))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, None)
            if steps is not None:
                progress(Progress(phase, steps, steps))

    return BuildMonitor()
