"""What answers a front's requests: replicas elsewhere in place of a pipeline of its own."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from qyolo.cluster.replicas import Replicas
from service.experiments.events import Compared
from service.experiments.split import Experiment
from service.inference.admission import BaseBackend
from service.inference.events import Event
from service.inference.pipeline import panels
from service.inference.results import Answer, Comparison, RawAnswer
from service.inference.variants import VariantSet
from service.vision.detections import Floats
from service.vision.drawing import PictureType, draw_side_by_side, encode
from service.vision.image import decode_image
from service.vision.postprocess import Query


class RemotePipeline(BaseBackend[Replicas]):
    """`service.inference.backend.Answering` by replicas."""

    def __init__(
        self,
        variants: VariantSet[Replicas],
        capacity: int,
        max_pixels: int,
        observe: Callable[[Event], None],
        experiment: Experiment,
    ) -> None:
        super().__init__(variants, capacity, observe, experiment)
        self._max_pixels = max_pixels

    async def detect(
        self,
        data: bytes,
        variant: str | None,
        query: Query,
        picture: PictureType | None = None,
        collect: bool = True,
    ) -> Answer:
        _, replicas = self.variants.get(variant)
        with self._slot():
            answer = await replicas.detect(data, query, picture)
            self._observe(answer)
            return answer

    async def compare(
        self,
        data: bytes,
        a: str | None,
        b: str | None,
        query: Query,
        picture: PictureType | None = None,
    ) -> Comparison:
        """Both at once, each by a replica of its own."""
        (name_a, replicas_a), (name_b, replicas_b) = self.variants.get(a), self.variants.get(b)
        with self._slot():
            asked = [each.detect(data, query) for each in (replicas_a, replicas_b)]
            answer_a, answer_b = await asyncio.gather(*asked)
            both = Comparison(answer_a, answer_b)
            seen = Compared("compare", name_a, name_b, answer_a.detections, answer_b.detections)
            for observation in (answer_a, answer_b, seen):
                self._observe(observation)
            if picture is None:
                return both
            return replace(both, picture=await asyncio.to_thread(self._paint, data, both, picture))

    async def infer(self, tensor: Floats, variant: str | None) -> RawAnswer:
        _, replicas = self.variants.get(variant)
        with self._slot():
            answer = await replicas.infer(tensor)
            self._observe(answer)
            return answer

    def close(self) -> None:
        self.variants.close()

    def _paint(self, data: bytes, both: Comparison, media_type: PictureType) -> bytes:
        pixels = decode_image(data, self._max_pixels).pixels
        return encode(
            draw_side_by_side(pixels, panels(both), self.variants.manifest.class_name), media_type
        )
