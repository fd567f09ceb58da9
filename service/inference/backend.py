"""The interface of an inference backend, which turns images into boxes and tensors into tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from service.inference.admission import Admission
from service.inference.results import Answer, Comparison, RawAnswer
from service.inference.variants import VariantChoice, VariantSet
from service.vision.detections import Detections, Floats
from service.vision.image import Pixels
from service.vision.postprocess import Query

Render = Callable[[Pixels, Sequence[Answer]], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class ImageRequest:
    """One image and what to do with it; it can be pickled if `render` can."""

    data: bytes | Pixels  # an image file, or u8[H,W,3] RGB
    query: Query
    collect: bool = True  # whether the server may keep the image, where it collects some
    # (u8[H,W,3] RGB in source pixels, one answer or the two that are compared) -> an image file
    render: Render | None = None


class InferenceBackend(Protocol):
    """Implemented by `service.inference.pipeline.Pipeline` with the engines of this process, and
    by `qyolo.cluster.remote.RemotePipeline` with the replicas of a Ray cluster.

    `detect`, `compare` and `infer` take a slot and raise Overloaded, VariantNotFound, EngineFailed,
    VariantFailed and, for an image, what `decode_image` raises.
    """

    @property
    def variants(self) -> VariantSet[Any]: ...

    @property
    def choice(self) -> VariantChoice: ...

    @property
    def admission(self) -> Admission: ...

    async def detect(self, image: ImageRequest, variant: str) -> Answer:
        """The boxes of one variant; its timings contain neither rendering nor collecting."""

    async def compare(self, image: ImageRequest, a: str, b: str) -> Comparison:
        """The boxes of two variants; the timings of each are as if it alone had been requested."""

    async def infer(self, tensor: Floats, variant: str) -> RawAnswer:
        """The raw output for f32[1,3,height,width]."""

    def examine(self, data: bytes, query: Query, variant: str | None = None) -> Detections:
        """The boxes of an image, by default of the default variant, neither counted nor queued.

        Blocks; raises as `detect`.
        """

    def failures(self) -> Mapping[str, str]:
        """The variants that are out of service, and why."""

    def when_lost(self, call: Callable[[str], None]) -> None:
        """Have the function called, in another thread, once no variant could be recovered."""

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait for what is in progress, then free everything; whether it ended within the time."""
