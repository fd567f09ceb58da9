"""Build a detector on this machine and check its engines."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from quantizer.build import build
from quantizer.calibration.images import find_images, read_pixels
from quantizer.compile.builder import INT8_NAMES
from quantizer.compile.hardware import Hardware, detect
from quantizer.config import BuildConfig
from quantizer.evaluation.accuracy_gate import AGREEMENT_DROP
from quantizer.evaluation.detectors import graph_detector
from quantizer.model.layout import read_detector
from quantizer.report.data import Report
from qyolo.paper import PaperRow, measure
from service.errors import DeviceUnavailable, ServiceError
from service.inference.detector import Detector
from service.manifest import Manifest, Runtime, read_manifest
from service.progress import ReportProgress
from service.vision.agreement import agreement
from service.vision.detections import Detections
from service.vision.image import Photo, Pixels
from service.vision.postprocess import Query

FP32_DROP: Final = 0.01  # two processors round float32 differently; the boxes stay the same
QUERY: Final = Query(conf=0.1)  # below the serving threshold: more boxes to compare


@dataclass(frozen=True, slots=True)
class Check:
    """A statement about this machine, whether it holds, and the measurement."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The result, as a report that a user can send in."""

    hardware: Hardware
    runtime: Runtime
    checks: tuple[Check, ...]
    report: Report
    paper: tuple[PaperRow, ...] = ()  # where it was asked for

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def to_json(self) -> str:
        document: dict[str, Any] = asdict(self) | {"passed": self.passed}
        return json.dumps(document, indent=2) + "\n"


def selftest(config: BuildConfig, progress: ReportProgress, paper: bool = False) -> SelfTest:
    """Build in a temporary folder and compare with float32 on the CPU; raises what `build` does.

    With `paper` it times the models of the Q-YOLO paper as well.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        report = build(config, folder, progress)
        checks = tuple(_checks(config, folder, report))
    rows = measure(config, progress) if paper else ()
    return SelfTest(detect(), report.options.runtime, checks, report, rows)


def _checks(config: BuildConfig, folder: Path, report: Report) -> Iterator[Check]:
    yield _int8_kernels(report)
    manifest = read_manifest(folder)
    images = [p for p in read_pixels(find_images(config.calibration)) if p is not None]
    float_model = read_detector(
        config.model, manifest.size, config.head, config.preprocess, config.classes
    ).model
    expected = _boxes(graph_detector(float_model, manifest, 1), images)
    for name in manifest.variants:
        load = partial(Detector.load, folder, manifest, name)
        yield _agrees(name, _boxes(load(), images), expected)
        yield _repeats(name, load, images[0])
    if report.options.accelerator is not None:
        yield _runs_on(report.options.accelerator, manifest, report.rejected_candidates)
    if report.options.runtime in ("tensorrt", "tensorrt-rtx"):
        yield _refuses_a_stale_plan(folder, manifest)


def _int8_kernels(report: Report) -> Check:
    """Some planned convolutions run in int8; ONNX Runtime computes most of them in float."""
    counts = report.int8_convolutions
    ratio = f"{counts.executed} of {counts.planned} quantized convolutions"
    has_some = not report.options.runtime.startswith("onnxruntime") and counts.planned > 0
    others = {
        layer.executed["int8"]
        for layer in report.layers
        if layer.planned == "int8" and layer.executed["int8"] not in INT8_NAMES
    }
    detail = f"{ratio}; the others in {', '.join(sorted(others))}" if others else ratio
    return Check("int8 runs on int8 kernels", counts.executed > 0 or not has_some, detail)


def _runs_on(device: str, manifest: Manifest, dropped: Mapping[str, str]) -> Check:
    names = [name for name, each in manifest.variants.items() if each.device == device]
    reasons = [f"{name} is dropped: {reason}" for name, reason in dropped.items()]
    return Check(f"{device} runs the model", bool(names), "; ".join([", ".join(names), *reasons]))


def _agrees(name: str, detections: list[Detections], expected: list[Detections]) -> Check:
    agreed = agreement(list(zip(expected, detections, strict=True)))
    limit = FP32_DROP if name == "fp32" else AGREEMENT_DROP
    return Check(
        f"{name} finds the boxes of float32 on the CPU",
        agreed.drop <= limit,
        f"{agreed.matched:.1%} of {agreed.boxes_a} and {agreed.boxes_b} boxes in {agreed.images} "
        f"images match, mean IoU {agreed.mean_iou:.3f}, mean score difference "
        f"{agreed.mean_score_difference:.3f}",
    )


def _repeats(name: str, load: Callable[[], Detector], image: Pixels) -> Check:
    """Two runs of an engine, and of the same engine loaded again, give equal outputs."""
    raws = []
    for _ in range(2):
        detector = load()
        prepared = detector.preprocess(Photo.from_pixels(image))
        raws += [detector.infer(prepared) for _ in range(2)]
        detector.close()
    differences = [
        float(np.abs(output - first).max())
        for raw in raws[1:]
        for output, first in zip(raw, raws[0], strict=True)
    ]
    return Check(
        f"{name} repeats its output",
        max(differences) == 0,
        f"largest difference of four runs and two loads: {max(differences):g}",
    )


def _refuses_a_stale_plan(folder: Path, manifest: Manifest) -> Check:
    variant = manifest.variants["int8"].model_copy(update={"blob_key": "another GPU"})
    stale = manifest.model_copy(update={"variants": {"int8": variant}, "default": "int8"})
    refused, detail = False, "it was loaded"
    try:
        Detector.load(folder, stale, "int8").close()
    except ServiceError as exc:
        refused, detail = isinstance(exc, DeviceUnavailable), str(exc)
    return Check("a plan of another GPU is refused", refused, detail)


def _boxes(detector: Detector, images: list[Pixels]) -> list[Detections]:
    detections = [detector.detect(Photo.from_pixels(image), QUERY) for image in images]
    detector.close()
    return detections
