"""Fit an image into the model's square without distortion, and map boxes back."""

from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.detections import Floats
from service.image import Pixels

PAD_GREY: Final = (
    114  # the grey that YOLOs are trained with; another value moves scores at the edge
)

Padding = Literal["centre", "bottom-right"]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The geometry of one letterboxed image; sizes and offsets in pixels."""

    source_width: int
    source_height: int
    width: int  # of the resized image inside the square
    height: int
    left: int
    top: int

    @classmethod
    def fit(cls, source_width: int, source_height: int, size: int, padding: Padding) -> Self:
        """The largest upright copy of the source in a size x size square."""
        scale = min(size / source_width, size / source_height)
        width = max(1, round(source_width * scale))
        height = max(1, round(source_height * scale))
        centred = padding == "centre"
        left = (size - width) // 2 if centred else 0
        top = (size - height) // 2 if centred else 0
        return cls(source_width, source_height, width, height, left, top)

    def to_source(self, xyxy: Floats) -> Floats:
        """f32[N,4] in the square -> f32[N,4] in the source image, clipped to it."""
        scale = np.array(
            [self.source_width / self.width, self.source_height / self.height] * 2, np.float32
        )
        offset = np.array([self.left, self.top] * 2, np.float32)
        limit = np.array([self.source_width, self.source_height] * 2, np.float32)
        clipped: Floats = np.clip((xyxy - offset) * scale, 0, limit)
        return clipped


def letterbox(image: Pixels, size: int, padding: Padding) -> tuple[NDArray[np.uint8], Letterbox]:
    """u8[H,W,3] -> u8[size,size,3] and its geometry; bilinear, padded with grey."""
    box = Letterbox.fit(image.shape[1], image.shape[0], size, padding)
    square = np.full((size, size, 3), PAD_GREY, np.uint8)
    if (box.width, box.height) != (box.source_width, box.source_height):
        resized = Image.fromarray(image).resize((box.width, box.height), Image.Resampling.BILINEAR)
        image = np.asarray(resized)
    square[box.top : box.top + box.height, box.left : box.left + box.width] = image
    return square, box
