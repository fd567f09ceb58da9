"""What one image yields: the boxes of one variant, and what they cost."""

from dataclasses import dataclass

from service.detections import Detections
from service.timings import Timings


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Boxes in pixels of the source image, whose size is given."""

    variant: str
    width: int
    height: int
    detections: Detections
    timings: Timings
    picture: bytes | None = None  # the image with its boxes, where it was asked for
