"""What one image yields: the boxes of one variant, and what they cost."""

from dataclasses import dataclass

from service.inference.timings import Timings
from service.vision.detections import Detections, Floats


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Boxes in pixels of the source image, whose size is given."""

    variant: str
    width: int
    height: int
    detections: Detections
    timings: Timings
    picture: bytes | None = None  # the image with its boxes, where it was asked for


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The answers of two variants to one image."""

    a: Answer
    b: Answer
    picture: bytes | None = None  # both sides in one, where it was asked for


@dataclass(frozen=True, slots=True, eq=False)
class RawAnswer:
    """The raw output of one variant to a tensor that its caller has prepared."""

    variant: str
    output: Floats
    timings: Timings
