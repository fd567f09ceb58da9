"""One engine with the preprocessing and the postprocessing of its model: pixels -> boxes."""

from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np

from service.engines import Engine, load_engine
from service.manifest import Manifest, projections_of
from service.vision.detections import Detections, Floats, Outputs
from service.vision.heads import HEADS
from service.vision.image import EncodedImage, Photo
from service.vision.maps import MapLayout
from service.vision.postprocess import Decoder, Query, postprocess
from service.vision.preprocess import PREPROCESS, Prepared, preprocess, room_in_canvas
from service.vision.projections import Projections


class Detector:
    """The methods are the stages of an image, in order; `detect` is all but the first."""

    def __init__(
        self,
        engine: Engine,
        manifest: Manifest,
        maps: MapLayout | None = None,
        projections: Projections = MappingProxyType({}),
    ) -> None:
        self._engine = engine
        self._size = manifest.size
        self._padding = PREPROCESS[manifest.preprocess].padding
        self._decoder = Decoder.of(HEADS[manifest.head], manifest.size, maps, projections)

    @classmethod
    def load(
        cls, folder: Path, manifest: Manifest, variant: str, threads: int = 0, streams: int = 1
    ) -> Self:
        """The detector of one variant; raises what `load_engine` and `read_projections` raise."""
        described = manifest.variants[variant]
        how = PREPROCESS[manifest.preprocess]
        engine = load_engine(folder, described, threads, streams, how)
        return cls(engine, manifest, manifest.maps_of(variant), projections_of(folder, described))

    def read_header(self, data: bytes, max_pixels: int) -> EncodedImage:
        """What `decode` decodes, and its cost; raises as `decode_image`."""
        room = room_in_canvas(self._size, self._padding)
        return EncodedImage(data, max_pixels, self._size, room)

    def decode(self, data: bytes, max_pixels: int) -> Photo:
        """An encoded image -> pixels, no more than the model needs; raises as `decode_image`."""
        return self.read_header(data, max_pixels).decode()

    def preprocess(self, photo: Photo) -> Prepared:
        """Pixels -> the engine's input."""
        return preprocess(photo, self._size, self._padding)

    def infer(self, prepared: Prepared) -> Outputs:
        """The engine's outputs; raises EngineFailed."""
        return self._engine.infer(prepared.canvas)

    def infer_tensor(self, tensor: Floats) -> Floats:
        """The raw output for f32[1,3,height,width], preprocessed by the caller."""
        return self._engine.infer_tensor(tensor)

    def postprocess(self, outputs: Outputs, prepared: Prepared, query: Query) -> Detections:
        """Outputs of the engine -> boxes in source pixels, best first."""
        return postprocess(outputs, self._decoder, prepared.letterbox, query)

    def detect(self, photo: Photo, query: Query) -> Detections:
        """Pixels -> boxes in source pixels, best first; raises EngineFailed."""
        prepared = self.preprocess(photo)
        return self.postprocess(self.infer(prepared), prepared, query)

    def warm_up(self, runs: int = 2) -> None:
        """Infer a blank image, since an engine allocates in its first runs."""
        shape = (self._size.height, self._size.width, 3)
        blank = self.preprocess(Photo.from_pixels(np.zeros(shape, np.uint8)))
        for _ in range(runs):
            self.infer(blank)

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()
