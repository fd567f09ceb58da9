"""One engine with the preprocessing and the postprocessing of its model: pixels -> boxes."""

from pathlib import Path
from typing import Self

import numpy as np

from service.engines import Engine, load_engine
from service.manifest import Manifest
from service.vision.detections import Detections, Floats
from service.vision.heads import HEADS
from service.vision.image import EncodedImage, Photo
from service.vision.postprocess import Query, postprocess
from service.vision.preprocess import PREPROCESS, Prepared, preprocess


class Detector:
    """The methods are the stages of an image, in order; `detect` is all but the first."""

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

    def read_header(self, data: bytes, max_pixels: int) -> EncodedImage:
        """What `decode` decodes, and its cost; raises as `decode_image`."""
        return EncodedImage(data, max_pixels, self._size)

    def decode(self, data: bytes, max_pixels: int) -> Photo:
        """An encoded image -> pixels, no more than the model needs; raises as `decode_image`."""
        return self.read_header(data, max_pixels).decode()

    def preprocess(self, photo: Photo) -> Prepared:
        """Pixels -> the engine's input."""
        return preprocess(photo, self._size, self._preprocess)

    def infer(self, prepared: Prepared) -> Floats:
        """The engine's raw output; raises EngineFailed."""
        return self._engine.infer(prepared.planes)

    def infer_tensor(self, tensor: Floats) -> Floats:
        """The raw output for f32[1,3,size,size], preprocessed by the caller."""
        return self._engine.infer(tensor)

    def postprocess(self, raw: Floats, prepared: Prepared, query: Query) -> Detections:
        """Raw output -> boxes in source pixels, best first."""
        return postprocess(raw, self._head, self._size, prepared.letterbox, query)

    def detect(self, photo: Photo, query: Query) -> Detections:
        """Pixels -> boxes in source pixels, best first; raises EngineFailed."""
        prepared = self.preprocess(photo)
        return self.postprocess(self.infer(prepared), prepared, query)

    def warm_up(self, runs: int = 2) -> None:
        """Infer a blank image, since an engine allocates in its first runs."""
        blank = self.preprocess(Photo.from_pixels(np.zeros((self._size, self._size, 3), np.uint8)))
        for _ in range(runs):
            self.infer(blank)

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()
