"""The paper's tables on any model: range rules at 8, 6 and 4 bits, weights and activations apart.

Source of the layout: Q-YOLO (arXiv 2307.04816), tables 1 to 3. AP on few images is noisy, so the
SQNR of the outputs is measured as well.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantizer.calibration.images import WantedSize, chosen_size, find_images
from quantizer.config import AnnotatedDataset
from quantizer.evaluation.accuracy import Accuracy, evaluate_detectors
from quantizer.evaluation.detectors import describe, graph_detector
from quantizer.model.execution import AT_ONCE
from quantizer.model.layout import read_detector
from quantizer.study.calibrated import calibrate
from quantizer.study.settings import Setting
from service.progress import Progress, ReportProgress


@dataclass(frozen=True, slots=True)
class Result:
    """`sqnr`: decibels of the outputs, over the first images with a detection."""

    setting: Setting
    accuracy: Accuracy
    sqnr: float


@dataclass(frozen=True, slots=True)
class Study:
    """The results, in the order of the settings."""

    model: str
    sha256: str
    calibration_images: int
    images: int
    kept_float: tuple[str, ...]
    results: tuple[Result, ...]
    versions: Mapping[str, str]

    def of(self, **values: object) -> Result | None:
        """The result of the setting with these values, and the defaults elsewhere; if measured."""
        setting = Setting(**values)  # type: ignore[arg-type]
        return next((result for result in self.results if result.setting == setting), None)

    def to_json(self) -> str:
        """Without the accuracy of each class, which a hundred settings would make long."""
        document = dataclasses.asdict(self)
        for result in document["results"]:
            del result["accuracy"]["classes"]
        return json.dumps(document, indent=2) + "\n"


def study(
    model: Path,
    calibration: Path,
    annotated: AnnotatedDataset,
    size: WantedSize,
    threads: int,
    settings: Sequence[Setting],
    progress: ReportProgress,
) -> Study:
    """Calibrate once, then measure the COCO AP of every setting.

    Raises UnsupportedModel, NoCalibrationImages or BadAnnotations.
    """
    detector = read_detector(model, chosen_size(size, find_images(calibration)))
    manifest = describe(model, detector)
    adaptive = any(setting.method.rounding == "adaptive" for setting in settings)
    calibrated = calibrate(detector, calibration, annotated.images, threads, adaptive, progress)
    results: list[Result] = []
    images = 0
    progress(Progress("study", 0, len(settings)))
    for start in range(0, len(settings), AT_ONCE):
        graphs = [(setting, calibrated.model(setting)) for setting in settings[start:][:AT_ONCE]]
        detectors = {
            str(number): graph_detector(graph, manifest, max(1, threads // AT_ONCE))
            for number, (_, graph) in enumerate(graphs)
        }
        evaluation = evaluate_detectors(detectors, manifest, annotated, lambda _: None, AT_ONCE)
        images = evaluation.images
        accuracies = evaluation.variants.values()
        results += [
            Result(setting, accuracy, calibrated.sqnr(graph))
            for (setting, graph), accuracy in zip(graphs, accuracies, strict=True)
        ]
        progress(Progress("study", len(results), len(settings)))
    return Study(
        model=model.stem,
        sha256=manifest.source_sha256,
        calibration_images=calibrated.images,
        images=images,
        kept_float=tuple(kept.layer for kept in calibrated.placement.kept_float),
        results=tuple(results),
        versions=manifest.versions,
    )
