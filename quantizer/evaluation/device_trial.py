"""Try engines on a device beside the processor, whose compiler and driver may fail.

A candidate is dropped, with the reason, if it does not compile, does not run, or finds other boxes
than float32 on the processor. It is compiled and first run in a process of its own, which its
driver may crash.
"""

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from quantizer.calibration.images import read_pixels
from quantizer.compile.builder import Builder, Built, Candidate
from quantizer.errors import BuildFailed
from quantizer.evaluation.accuracy_gate import gate
from quantizer.evaluation.detectors import open_variants
from quantizer.evaluation.device_process import DeviceProcess
from service.errors import EngineFailed
from service.manifest import Manifest, Variant
from service.progress import Progress, ReportProgress
from service.vision.agreement import agreement
from service.vision.detections import Detections
from service.vision.image import Photo
from service.vision.postprocess import Query

LIMIT_S: Final = 600.0  # an NPU's compiler takes minutes for a large graph


@dataclass(slots=True)
class Tried:
    """By the candidate's name: the engines that are right, and why the others were dropped."""

    built: dict[str, Built] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceTrial:
    """The images to compare boxes in, and a manifest whose fp32 is the processor's."""

    folder: Path
    manifest: Manifest
    images: Sequence[Path]
    threads: int
    max_drop: float | None  # of the agreement; None: the accuracy gate's limit
    limit_s: float = LIMIT_S  # for one candidate

    def run(
        self, builder: Builder, candidates: Sequence[Candidate], progress: ReportProgress
    ) -> Tried:
        """Build and try every candidate; the files of those that are dropped are removed."""
        tried = Tried()
        expected = self._boxes(self.manifest.variants["fp32"])
        with closing(DeviceProcess(partial(self._try, builder), self.limit_s)) as process:
            for done, candidate in enumerate(candidates):
                progress(Progress("try", done, len(candidates)))
                try:
                    part, found = process.call(candidate)
                    reason = self._disagreement(expected, found)
                except BuildFailed as exc:
                    reason = str(exc)
                if reason:
                    tried.dropped[candidate.name] = reason
                    shutil.rmtree(self.folder / candidate.name, ignore_errors=True)
                else:
                    tried.built[candidate.name] = part
        return tried

    def _try(self, builder: Builder, candidate: Candidate) -> tuple[Built, list[Detections]]:
        """In the other process; raises BuildFailed."""
        try:
            part = builder.build(candidate, self.folder)
            return part, self._boxes(part.variant)
        except (BuildFailed, EngineFailed) as exc:
            raise BuildFailed(_described(exc)) from exc

    def _boxes(self, variant: Variant) -> list[Detections]:
        """Of every image that can be decoded; raises EngineFailed."""
        alone = self.manifest.model_copy(update={"variants": {"fp32": variant}})
        with open_variants(self.folder, alone, self.threads) as detectors:
            return [
                detectors["fp32"].detect(Photo.from_pixels(pixels), Query())
                for pixels in read_pixels(self.images)
                if pixels is not None
            ]

    def _disagreement(self, expected: list[Detections], found: list[Detections]) -> str:
        """Why the boxes are wrong; empty if they are right."""
        if not any(map(len, expected)):
            return "fp32 finds no box in the images, so its boxes cannot be checked"
        measured = agreement(list(zip(expected, found, strict=True)))
        result = gate({"": measured}, None, self.max_drop)[""]
        return "" if result.accepted else result.reason


def _described(exc: Exception) -> str:
    """The error, with the last line of the runtime's own where it is not yet in it."""
    lines = str(exc.__cause__ or "").strip().splitlines()
    return str(exc) if not lines or lines[-1] in str(exc) else f"{exc}: {lines[-1]}"
