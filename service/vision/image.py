"""Untrusted bytes -> upright RGB pixels."""

import contextlib
import io
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from service.errors import CorruptImage, ImageTooLarge, NotAnImage

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
JPEGS: Final = {"JPEG", "MPO"}  # an MPO file holds several JPEGs; the first one is read
MAX_PIXELS: Final = 178_000_000  # Pillow itself refuses more, as a decompression bomb
REDUCTIONS: Final = (8, 4, 2)  # factors at which libjpeg decodes a smaller image in less time
START_OF_SCAN: Final = b"\xff\xda"
# A progressive JPEG has about ten scans. Each is a pass over all pixels, and a bomb has thousands.
MAX_SCANS: Final = 100
MAX_PASSES: Final = 20  # over as many pixels as an image may have
# Pillow reads an image of 20 MiB in 320 pieces, and a PNG of small chunks in some ten thousand.
MAX_READS: Final = 100_000
ORIENTATION: Final = 0x0112  # the EXIF tag
# Its value -> whether to swap rows and columns, then the steps along both (-1: reversed).
UPRIGHT: Final = {
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}

Pixels = NDArray[np.uint8]  # [height,width,3] RGB


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """u8[h,w,3] RGB, upright, and the size of the source image, which may be larger."""

    pixels: Pixels
    width: int
    height: int

    @classmethod
    def from_pixels(cls, pixels: Pixels) -> Self:
        """A photo that is not reduced."""
        return cls(pixels, pixels.shape[1], pixels.shape[0])


def decode_image(data: bytes, max_pixels: int, target: int | None = None) -> Photo:
    """Decode a JPEG, PNG, WebP or BMP and apply its EXIF orientation.

    With a `target`, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where its longer side still
    has `target` pixels: enough for a target x target square. Transparent pixels become white.

    Raises NotAnImage for other data, ImageTooLarge when the header announces more than
    `max_pixels` (before any pixel is decoded), CorruptImage when the pixels cannot be read.
    """
    with _open(data, max_pixels) as image:
        width, height = image.size
        _limit_scans(image, data, max_pixels)
        try:
            swap, down, right = UPRIGHT.get(image.getexif().get(ORIENTATION, 1), (False, 1, 1))
            pixels = _pixels(image, data, target)
        except Exception as exc:  # hostile data can raise nearly anything in a decoder
            raise CorruptImage("the image is truncated or corrupt") from exc
    if swap:
        pixels, width, height = pixels.transpose(1, 0, 2), height, width
    return Photo(np.ascontiguousarray(pixels[::down, ::right]), width, height)


def full_size(photo: Photo, data: bytes, max_pixels: int) -> Pixels:
    """The pixels of `data` at their full size; decodes again only if the photo is reduced."""
    if photo.pixels.shape[:2] == (photo.height, photo.width):
        return photo.pixels
    return decode_image(data, max_pixels).pixels


class _CountedReads(io.BytesIO):
    """Bytes as a file that may be read MAX_READS times.

    Pillow's loops in Python run once for each chunk of a file; tiny chunks would keep them busy.
    """

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise CorruptImage("the image is in too many pieces")
        return super().read(size)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(_CountedReads(data), formats=FORMATS)
    except UnidentifiedImageError as exc:
        raise NotAnImage("the data is not a JPEG, PNG, WebP or BMP image") from exc
    except Image.DecompressionBombError as exc:
        raise ImageTooLarge(f"the image has more than {max_pixels} pixels") from exc
    except Exception as exc:  # likewise
        raise CorruptImage("the image's header cannot be read") from exc
    if image.width * image.height > max_pixels:
        size = f"{image.width}x{image.height}"
        raise ImageTooLarge(f"the image is {size}, more than {max_pixels} pixels")
    return image


def _limit_scans(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Raise CorruptImage for a JPEG with too many scans for its size.

    libjpeg-turbo has such a limit (TJPARAM_SCANLIMIT); neither Pillow nor simplejpeg can set it.
    """
    if image.format not in JPEGS:
        return
    limit = min(MAX_SCANS, MAX_PASSES * max_pixels // max(1, image.width * image.height))
    marker, kind = START_OF_SCAN
    # NumPy counts the markers of a photo in a quarter of the time of bytes.count.
    each = np.frombuffer(data, np.uint8)
    if np.count_nonzero(each[np.flatnonzero(each[:-1] == marker) + 1] == kind) > limit:
        raise CorruptImage(f"the image has more than {limit} scans")


def _pixels(image: Image.Image, data: bytes, target: int | None) -> Pixels:
    """u8[h,w,3] as stored, before its orientation is applied."""
    if image.format in JPEGS and image.mode in {"RGB", "L"}:
        shrinks = max(image.size) / target if target else 1
        scale = next((each for each in REDUCTIONS if each <= shrinks), 1)
        least = {"min_width": -(-image.width // scale), "min_height": -(-image.height // scale)}
        # simplejpeg raises where libjpeg only warns; Pillow then decides.
        with contextlib.suppress(ValueError):
            decoded: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_factor=1, **least)
            return decoded
    return np.asarray(_to_rgb(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips it at 255
        deep = np.asarray(image, dtype=np.uint32)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    return image.convert("RGB")
