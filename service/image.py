"""Untrusted bytes -> upright RGB pixels."""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from service.errors import CorruptImage, ImageTooLarge, NotAnImage

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")
MOST_PIXELS: Final = 178_000_000  # Pillow itself refuses more, as a decompression bomb
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

Pixels = NDArray[np.uint8]


def decode_image(data: bytes, max_pixels: int) -> Pixels:
    """JPEG, PNG, WebP or BMP bytes -> u8[H,W,3] RGB, turned upright by its EXIF orientation.

    Transparent pixels show white, as a browser's page would. Raises NotAnImage for other data,
    ImageTooLarge when the header announces more than `max_pixels` (before any pixel is decoded),
    CorruptImage when the pixels cannot be read to the end.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as exc:
        raise NotAnImage("the data is not a JPEG, PNG, WebP or BMP image") from exc
    except Image.DecompressionBombError as exc:
        raise ImageTooLarge(f"the image has more than {max_pixels} pixels") from exc
    except Exception as exc:  # a hostile header can raise nearly anything in a decoder
        raise CorruptImage("the image's header cannot be read") from exc
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageTooLarge(f"the image is {width}x{height}, more than {max_pixels} pixels")
        try:
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
        except Exception as exc:  # likewise for a hostile body
            raise CorruptImage("the image is truncated or corrupt") from exc


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips it at 255
        deep = np.asarray(image, dtype=np.uint32)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, layers).convert("RGB")
    return image.convert("RGB")
