"""Callbacks for TensorRT: the progress of a build, and the times of layers.

Their base classes are those of the library, which is chosen when a build begins.
"""

from collections import defaultdict
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


class LayerTimes:
    """Milliseconds of each layer: the least of many rounds, since other work only adds time."""

    def __init__(self) -> None:
        self._rounds: list[defaultdict[str, float]] = []

    def begin(self) -> None:
        """Start a round."""
        self._rounds.append(defaultdict(float))

    def least(self, layer: str) -> float:
        """The least time of a layer; 0 where it was never reported."""
        return min((times[layer] for times in self._rounds), default=0.0)

    def profiler(self, module: Any) -> Any:
        """An IProfiler that reports to this."""
        rounds = self._rounds

        class Profiler(module.IProfiler):  # type: ignore[misc]
            def __init__(self) -> None:
                module.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                if rounds:
                    rounds[-1][layer_name] += ms

        return Profiler()
