"""Fit an image into the model's input without distortion, and map boxes back."""

from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
from kornia_rs import imgproc
from PIL import Image

from service.vision.detections import Floats
from service.vision.image import Photo, Pixels
from service.vision.input_size import InputSize

PAD_GREY: Final = 114  # as YOLOs are trained; another value moves scores at the edges
MAX_BILINEAR_SHRINK: Final = 2  # above it, bilinear interpolation skips pixels

Padding = Literal["centre", "bottom-right"]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The geometry of one letterboxed image; sizes and offsets in pixels."""

    source_width: int
    source_height: int
    width: int  # of the resized image inside the input
    height: int
    left: int
    top: int

    @classmethod
    def fit(cls, source_width: int, source_height: int, size: InputSize, padding: Padding) -> Self:
        """The largest undistorted copy of the source in an input of this size."""
        scale = min(size.width / source_width, size.height / source_height)
        width = max(1, round(source_width * scale))
        height = max(1, round(source_height * scale))
        centred = padding == "centre"
        left = (size.width - width) // 2 if centred else 0
        top = (size.height - height) // 2 if centred else 0
        return cls(source_width, source_height, width, height, left, top)

    @property
    def rows(self) -> slice:
        """Rows of the input that the image covers."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Columns of the input that the image covers."""
        return slice(self.left, self.left + self.width)

    def to_source(self, xyxy: Floats) -> Floats:
        """f32[N,4] in the input -> f32[N,4] in the source image, clipped to it."""
        scale = np.array(
            [self.source_width / self.width, self.source_height / self.height] * 2, np.float32
        )
        offset = np.array([self.left, self.top] * 2, np.float32)
        limit = np.array([self.source_width, self.source_height] * 2, np.float32)
        clipped: Floats = np.clip((xyxy - offset) * scale, 0, limit)
        return clipped


def resize_to_fit(photo: Photo, size: InputSize, padding: Padding) -> tuple[Pixels, Letterbox]:
    """The photo resized for an input of this size, u8[height,width,3], and its place there.

    Bilinear, as YOLOs are trained; averages all pixels where the image shrinks by more than 2.
    """
    box = Letterbox.fit(photo.width, photo.height, size, padding)
    image, height, width = photo.pixels, box.height, box.width
    rows, columns, _ = image.shape
    limit = MAX_BILINEAR_SHRINK
    if (rows, columns) == (height, width):
        return image, box
    # kornia_rs is quicker than Pillow, but does not average, and refuses a side of one pixel.
    if columns > limit * width or rows > limit * height or min(rows, columns) == 1:
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized), box
    return np.asarray(imgproc.resize(image, (height, width), "bilinear")), box
