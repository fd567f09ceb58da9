"""Fit an image into the model's square without distortion, and map boxes back."""

from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
from kornia_rs import imgproc
from PIL import Image

from service.vision.detections import Floats
from service.vision.image import Photo, Pixels

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


def fitted(photo: Photo, size: int, padding: Padding) -> tuple[Pixels, Letterbox]:
    """The copy that goes into a size x size square, u8[height,width,3], and where it goes."""
    box = Letterbox.fit(photo.width, photo.height, size, padding)
    if photo.pixels.shape[:2] == (box.height, box.width):
        return photo.pixels, box
    return _resized(photo.pixels, box.width, box.height), box


def _resized(image: Pixels, width: int, height: int) -> Pixels:
    """Bilinear as YOLOs are trained with; a copy below half the size needs every pixel averaged."""
    rows, columns, _ = image.shape
    shrinks = columns > MOST_SHRINKING * width or rows > MOST_SHRINKING * height
    if shrinks or min(rows, columns) == 1:  # of which the quicker one makes nothing
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized)
    quick: Pixels = np.asarray(imgproc.resize(image, (height, width), "bilinear"))
    return quick
