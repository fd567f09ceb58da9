"""What answers images: the pipeline of this process, or replicas on other machines."""

from typing import Any, Protocol

from service.experiments.split import Experiment
from service.inference.results import Answer, Comparison, RawAnswer
from service.inference.variants import VariantSet
from service.vision.detections import Floats
from service.vision.drawing import PictureType
from service.vision.postprocess import Query


class InferenceBackend(Protocol):
    """As `service.inference.pipeline.Pipeline`, whose docstrings say what each method raises."""

    @property
    def variants(self) -> VariantSet[Any]: ...

    @property
    def experiment(self) -> Experiment: ...

    def choose(self, variant: str | None, client: str) -> str: ...

    async def detect(
        self,
        data: bytes,
        variant: str | None,
        query: Query,
        picture: PictureType | None = None,
        collect: bool = True,
    ) -> Answer: ...

    async def compare(
        self,
        data: bytes,
        a: str | None,
        b: str | None,
        query: Query,
        picture: PictureType | None = None,
    ) -> Comparison: ...

    async def infer(self, tensor: Floats, variant: str | None) -> RawAnswer: ...

    def ensure_room(self) -> None: ...

    def close(self) -> None: ...
