"""Generated images, encoded as clients send them."""

import io

import numpy as np
from PIL import Image

from service.vision.image import Photo
from service.vision.input_size import InputSize
from service.vision.letterbox import PAD_GREY, Letterbox, Padding, resize_to_fit


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards; smooth, so that JPEG keeps it."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 90)], axis=-1).astype(np.uint8))


def noise(width: int, height: int) -> Image.Image:
    """Pixels that no format compresses."""
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def jpeg(width: int = 200, height: int = 100) -> bytes:
    return encoded(gradient(width, height), "JPEG", quality=95)


def png(width: int = 200, height: int = 100) -> bytes:
    return encoded(gradient(width, height), "PNG")


def letterboxed(image: np.ndarray, side: int, padding: Padding) -> tuple[np.ndarray, Letterbox]:
    """u8[H,W,3] in a grey u8[side,side,3], as a model receives it, in 0..255."""
    copy, box = resize_to_fit(Photo.from_pixels(image), InputSize.of(side), padding)
    square = np.full((side, side, 3), PAD_GREY, np.uint8)
    square[box.rows, box.columns] = copy
    return square, box
