"""Callbacks for TensorRT: the progress of a build, and the times of layers."""

from collections import defaultdict

import tensorrt as trt

from service.progress import Progress, ReportProgress


class BuildMonitor(trt.IProgressMonitor):  # type: ignore[misc]
    """Reports the outermost phase of a build as progress; inner phases only add detail."""

    def __init__(self, phase: str, progress: ReportProgress) -> None:
        trt.IProgressMonitor.__init__(self)
        self._phase = phase
        self._progress = progress
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        if not parent_phase:
            self._steps[phase_name] = num_steps
            self._progress(Progress(self._phase, 0, num_steps))

    def step_complete(self, phase_name: str, step: int) -> bool:
        if phase_name in self._steps:
            self._progress(Progress(self._phase, step + 1, self._steps[phase_name]))
        return True

    def phase_finish(self, phase_name: str) -> None:
        steps = self._steps.pop(phase_name, None)
        if steps is not None:
            self._progress(Progress(self._phase, steps, steps))


class LayerTimes(trt.IProfiler):  # type: ignore[misc]
    """Milliseconds of each layer: the least of many rounds, since other work only adds time."""

    def __init__(self) -> None:
        trt.IProfiler.__init__(self)
        self._rounds: list[defaultdict[str, float]] = []

    def begin(self) -> None:
        """Start a round."""
        self._rounds.append(defaultdict(float))

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        if self._rounds:
            self._rounds[-1][layer_name] += ms

    def least(self, layer: str) -> float:
        """The least time of a layer; 0 where it was never reported."""
        return min((times[layer] for times in self._rounds), default=0.0)
