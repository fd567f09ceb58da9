"""Fit an image into the model's square without distortion, and map boxes back."""

from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
from kornia_rs import imgproc
from numpy.typing import NDArray
from PIL import Image

from service.detections import Floats
from service.image import Pixels

PAD_GREY: Final = (
    114  # the grey that YOLOs are trained with; another value moves scores at the edge
)
MOST_SHRINKING: Final = 2  # up to which bilinear interpolation skips no pixel

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

    @property
    def rows(self) -> slice:
        """Of the square that the image covers."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Of the square that the image covers."""
        return slice(self.left, self.left + self.width)

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
    copy, box = fitted(image, size, padding)
    square = np.full((size, size, 3), PAD_GREY, np.uint8)
    square[box.rows, box.columns] = copy
    return square, box


def fitted(
    image: Pixels, size: int, padding: Padding, source: tuple[int, int] | None = None
) -> tuple[Pixels, Letterbox]:
    """The copy that goes into the square, u8[height,width,3], and where it goes.

    `source` is the width and height of the picture, where the image is a reduced copy of it.
    """
    width, height = source or (image.shape[1], image.shape[0])
    box = Letterbox.fit(width, height, size, padding)
    if image.shape[:2] == (box.height, box.width):
        return image, box
    return _resized(image, box.width, box.height), box


def _resized(image: Pixels, width: int, height: int) -> Pixels:
    """Bilinear as YOLOs are trained with; a copy below half the size needs every pixel averaged."""
    rows, columns, _ = image.shape
    shrinks = columns > MOST_SHRINKING * width or rows > MOST_SHRINKING * height
    if shrinks or min(rows, columns) == 1:  # of which the quicker one makes nothing
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized)
    quick: Pixels = np.asarray(imgproc.resize(image, (height, width), "bilinear"))
    return quick
