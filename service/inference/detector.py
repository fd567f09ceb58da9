"""The pipeline of one image, readable in one screen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from service.engines import Engine, load_engine
from service.manifest import Manifest
from service.vision.detections import Detections, Floats
from service.vision.heads import HEADS, detections_of
from service.vision.image import Photo, decode_to_fit
from service.vision.nms import non_max_suppression
from service.vision.preprocess import PREPROCESS, Prepared, prepare


@dataclass(frozen=True, slots=True)
class Query:
    """What a caller wants of the boxes; the defaults are YOLOv5's."""

    conf: float = 0.25  # boxes at or below this score are dropped
    iou: float = 0.45  # boxes of a class that overlap a better one by more are dropped
    max_det: int = 300
    classes: frozenset[int] | None = None  # only these
    multi_label: bool = False  # every class of a box, as COCO AP is measured


class Detector:
    """One engine with the model's own preprocessing and decoding around it."""

    def __init__(self, engine: Engine, manifest: Manifest) -> None:
        self._engine = engine
        self._size = manifest.size
        self._head = HEADS[manifest.head]
        self._preprocess = PREPROCESS[manifest.preprocess]

    @classmethod
    def load(
        cls, folder: Path, manifest: Manifest, variant: str, threads: int = 0, streams: int = 1
    ) -> Self:
        """The detector of one variant; raises what `load_engine` raises."""
        divisor = PREPROCESS[manifest.preprocess].divisor
        engine = load_engine(folder, manifest.variants[variant], threads, streams, divisor)
        return cls(engine, manifest)

    def open(self, data: bytes, max_pixels: int) -> Photo:
        """An encoded picture, no larger than this detector needs it; raises as `decode_image`."""
        return decode_to_fit(data, max_pixels, self._size)

    def prepare(self, photo: Photo) -> Prepared:
        """What the engine sees of a picture."""
        return prepare(photo, self._size, self._preprocess)

    def infer(self, prepared: Prepared) -> Floats:
        """The engine's raw output; raises EngineFailed."""
        return self._engine.infer(prepared.planes)

    def run(self, tensor: Floats) -> Floats:
        """The same for f32[1,3,size,size] that the caller has prepared."""
        return self._engine.infer(tensor)

    def finish(self, raw: Floats, prepared: Prepared, query: Query) -> Detections:
        """Raw output -> boxes in source pixels, best first."""
        candidates = self._head.decode(raw, self._size, query.conf)
        found = detections_of(candidates, query.conf, query.multi_label)
        if query.classes is not None:
            found = found.take(np.isin(found.class_ids, list(query.classes)))
        if self._head.nms:
            found = non_max_suppression(found, query.iou, query.max_det)
        found = found.take(np.arange(min(len(found), query.max_det)))
        return Detections(prepared.letterbox.to_source(found.xyxy), found.scores, found.class_ids)

    def detect(self, photo: Photo, query: Query) -> Detections:
        """All three steps."""
        prepared = self.prepare(photo)
        return self.finish(self.infer(prepared), prepared, query)

    def warm_up(self, runs: int = 2) -> None:
        """The first runs allocate; no request should wait for that."""
        blank = self.prepare(Photo.of(np.zeros((self._size, self._size, 3), np.uint8)))
        for _ in range(runs):
            self.infer(blank)

    def close(self) -> None:
        self._engine.close()
