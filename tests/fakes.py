"""Fakes: engines that compute nothing, and sources of models that wait or fail."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from service.engines import Engine
from service.errors import NotReady
from service.inference.admission import READY, Admission
from service.inference.detector import Detector
from service.inference.variants import VariantSet
from service.manifest import Manifest, Variant
from service.progress import Progress, ReportProgress
from service.vision.detections import Floats, Outputs
from service.vision.preprocess import Canvas
from tests.waiting import WAIT_LIMIT_S

CLASS_NAMES = ("person", "traffic light", "dog")


def manifest_of(*names: str, **changes: object) -> Manifest:
    """A manifest of a 64x64 YOLOv5 with three classes; the last variant is the default."""
    fields: dict[str, object] = {
        "name": "tiny",
        "device": "cpu",
        "size": 64,
        "head": "yolov5",
        "preprocess": "yolo",
        "class_names": CLASS_NAMES,
        "default": names[-1],
        "variants": {
            name: Variant(
                runtime="onnxruntime",
                precision="int8" if name == "int8" else "fp32",
                model=f"{name}/model.onnx",
            )
            for name in names
        },
        "source_sha256": "ab" * 32,
        "versions": {},
        "created": "2026-01-01T00:00:00Z",
    }
    return Manifest.model_validate(fields | changes)


def yolov5_raw(rows: Sequence[tuple[float, float, float, float, float, int]]) -> Floats:
    """Rows of centre x, y, width, height, score, class -> a raw YOLOv5 output."""
    raw = np.zeros((1, len(rows), 5 + len(CLASS_NAMES)), np.float32)
    for index, (x, y, width, height, score, class_id) in enumerate(rows):
        raw[0, index, :5] = x, y, width, height, score
        raw[0, index, 5 + class_id] = 1.0
    return raw


class FakeEngine:
    """Returns the same raw output for every image, once the gate is open; raises `failure`."""

    def __init__(self, raw: Floats) -> None:
        self.raw = raw
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failure: Exception | None = None
        self.closed = False
        self.calls = 0
        self.image: Canvas | None = None
        self.tensor: Floats | None = None

    def infer(self, image: Canvas) -> Outputs:
        self.image = image
        return (self._answer(),)

    def infer_tensor(self, tensor: Floats) -> Floats:
        self.tensor = tensor
        return self._answer()

    def _answer(self) -> Floats:
        self.calls += 1
        self.entered.set()
        assert self.gate.wait(WAIT_LIMIT_S)
        if self.failure is not None:
            raise self.failure
        return self.raw.copy()

    def close(self) -> None:
        self.closed = True


def variants_of(
    engines: Mapping[str, Engine], report: bytes | None = b'{"made": "up"}', **changes: object
) -> VariantSet[Detector]:
    manifest = manifest_of(*engines, **changes)
    detectors = {name: Detector(engine, manifest) for name, engine in engines.items()}
    return VariantSet(manifest, detectors, report)


def admission(
    capacity: int | None = 16,
    max_bytes: int = 10**6,
    max_inflight_bytes: int = 10**7,
    max_wait_s: float | None = None,
    ready: int = READY,
) -> Admission:
    return Admission(capacity, max_bytes, max_inflight_bytes, max_wait_s, ready)


class HeldSource:
    """A build that stays at one progress until it is released or cancelled."""

    def __init__(self, progress: Progress, folder: Path | None = None) -> None:
        self._progress = progress
        self._folder = folder or Path()
        self._continue = threading.Event()
        self._cancelled = False

    def folder(self, report: ReportProgress) -> Path:
        report(self._progress)
        assert self._continue.wait(WAIT_LIMIT_S)
        if self._cancelled:
            raise NotReady("the build was cancelled")
        return self._folder

    def release(self) -> None:
        self._continue.set()

    def cancel(self) -> None:
        self._cancelled = True
        self._continue.set()


class FailingSource:
    """A build that fails."""

    def __init__(self, failure: BaseException) -> None:
        self._failure = failure

    def folder(self, report: ReportProgress) -> Path:
        raise self._failure

    def cancel(self) -> None:
        pass
