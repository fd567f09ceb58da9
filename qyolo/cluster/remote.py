"""The backend of a cluster's ingress: replicas infer, where a plain server has engines."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from qyolo.cluster.replicas import Replicas
from service.errors import Refused
from service.experiments.events import Compared
from service.experiments.split import Experiment
from service.inference.admission import Admission
from service.inference.backend import ImageRequest, Render
from service.inference.decode_memory import DecodeMemory
from service.inference.results import Answer, Comparison, Event, RawAnswer
from service.inference.semaphore import Waiter
from service.inference.variants import VariantChoice, VariantSet
from service.vision.detections import Detections, Floats
from service.vision.image import EncodedImage, Pixels
from service.vision.postprocess import Query


class RemotePipeline:
    """Implements `service.inference.backend.InferenceBackend` with replicas."""

    def __init__(
        self,
        variants: VariantSet[Replicas],
        admission: Admission,
        max_pixels: int,
        emit: Callable[[Event], None],
        experiment: Experiment,
        decode_memory: int = 0,
    ) -> None:
        self.variants = variants
        self.admission = admission
        self.choice = VariantChoice(variants, experiment, emit)
        self._max_pixels = max_pixels
        self._emit = emit
        self._memory = DecodeMemory(decode_memory)

    async def detect(self, image: ImageRequest, variant: str) -> Answer:
        with self.admission.slot(variant):
            answer = await self.variants.get(variant).detect(image)
            self._emit(answer)
            return answer

    async def compare(self, image: ImageRequest, a: str, b: str) -> Comparison:
        """Call two replicas at once; the ingress renders the picture."""
        plain = replace(image, render=None)
        with self.admission.slot((a, b)):
            answer_a, answer_b = await asyncio.gather(
                self.variants.get(a).detect(plain), self.variants.get(b).detect(plain)
            )
            compared = Compared("compare", a, b, answer_a.detections, answer_b.detections)
            for event in (answer_a, answer_b, compared):
                self._emit(event)
            picture = None
            if (render := image.render) is not None:
                picture = await asyncio.to_thread(
                    self._rendered, image.data, render, (answer_a, answer_b)
                )
            return Comparison(answer_a, answer_b, picture)

    def _rendered(self, data: bytes | Pixels, render: Render, answers: Sequence[Answer]) -> bytes:
        if isinstance(data, np.ndarray):
            return render(data, answers)
        encoded = EncodedImage(data, self._max_pixels)
        with self._memory.reserve(encoded, Waiter(), drawn=True):
            return render(encoded.decode().pixels, answers)

    async def infer(self, tensor: Floats, variant: str) -> RawAnswer:
        with self.admission.slot(("tensor", variant)):
            answer = await self.variants.get(variant).infer(tensor)
            self._emit(answer)
            return answer

    def examine(self, data: bytes, query: Query, variant: str | None = None) -> Detections:
        """Not here: `qyolo cluster` replaces the replicas."""
        raise Refused("a cluster changes its model by `qyolo cluster`")

    def failures(self) -> Mapping[str, str]:
        """None: Ray replaces a replica that is out of service."""
        return {}

    def when_lost(self, call: Callable[[str], None]) -> None:
        """Never: see `failures`."""

    def close(self, timeout_s: float | None = None) -> bool:
        self.variants.close()
        return True
