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
MOST_PIXELS: Final = 178_000_000  # Pillow itself refuses more, as a decompression bomb
ORIENTATION: Final = 0x0112  # EXIF's tag
SIDEWAYS: Final = {5, 6, 7, 8}  # its values that swap width and height
REDUCTIONS: Final = (8, 4, 2)  # that a JPEG's transform offers at next to no cost
JPEGS: Final = {"JPEG", "MPO"}  # the second holds more than one, of which the first is meant
START_OF_SCAN: Final = b"\xff\xda"
# A progressive JPEG has about ten; a bomb has thousands, each of which is a pass over all pixels.
MOST_SCANS: Final = 100
MOST_PASSES: Final = 20  # over as many pixels as an image may have
# An image of 20 MiB is read in 320 pieces, a PNG of small chunks in some ten thousand.
MOST_READS: Final = 100_000
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

Pixels = NDArray[np.uint8]  # [height,width,3] RGB


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """u8[h,w,3] RGB, upright, and the size of the picture that it was decoded from."""

    pixels: Pixels
    width: int
    height: int

    @classmethod
    def of(cls, pixels: Pixels) -> Self:
        """A picture at its own size."""
        return cls(pixels, pixels.shape[1], pixels.shape[0])


class _Source(io.BytesIO):
    """The bytes as a file; what comes in crumbs keeps Pillow's loops busy, and is refused."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MOST_READS:
            raise CorruptImage("the image is in too many pieces")
        return super().read(size)


def decode_image(data: bytes, max_pixels: int) -> Pixels:
    """JPEG, PNG, WebP or BMP bytes -> u8[H,W,3] RGB, turned upright by its EXIF orientation.

    Transparent pixels show white, as a browser's page would. Raises NotAnImage for other data,
    ImageTooLarge when the header announces more than `max_pixels` (before any pixel is decoded),
    CorruptImage when the pixels cannot be read to the end.
    """
    return _decode(data, max_pixels, None).pixels


def whole(photo: Photo, data: bytes, max_pixels: int) -> Pixels:
    """The picture at its full size, decoded anew only if the photo is a reduced copy of it."""
    if photo.pixels.shape[:2] == (photo.height, photo.width):
        return photo.pixels
    return decode_image(data, max_pixels)


def decode_to_fit(data: bytes, max_pixels: int, size: int) -> Photo:
    """The same for a copy that is to fit a size x size square.

    A JPEG that is much larger is decoded at a half, a quarter or an eighth of its size, which takes
    a fraction of the time, and never at less than the copy needs. Raises what `decode_image` does.
    """
    return _decode(data, max_pixels, size)


def _decode(data: bytes, max_pixels: int, size: int | None) -> Photo:
    try:
        image = Image.open(_Source(data), formats=FORMATS)
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
        if image.format in JPEGS:
            most = min(MOST_SCANS, MOST_PASSES * max_pixels // max(1, width * height))
            if _scans(data) > most:
                raise CorruptImage(f"the image has more than {most} scans")
        try:
            turn = image.getexif().get(ORIENTATION, 1)
            pixels = _upright(_pixels(image, data, size), turn)
        except Exception as exc:  # likewise for a hostile body
            raise CorruptImage("the image is truncated or corrupt") from exc
    if turn in SIDEWAYS:
        width, height = height, width
    return Photo(pixels, width, height)


def _scans(data: bytes) -> int:
    """How many of its markers are in a JPEG, one byte after the other: bytes.count is slower."""
    marker, kind = START_OF_SCAN
    each = np.frombuffer(data, np.uint8)
    return int(np.count_nonzero(each[np.flatnonzero(each[:-1] == marker) + 1] == kind))


def _pixels(image: Image.Image, data: bytes, size: int | None) -> Pixels:
    """As they are stored, not turned yet."""
    scale = 1 if size is None else _reduction(*image.size, size)
    if image.format in JPEGS and image.mode in {"RGB", "L"}:
        least = {"min_width": -(-image.width // scale), "min_height": -(-image.height // scale)}
        # It warns of what Pillow reads without a word: then Pillow is to decide.
        with contextlib.suppress(ValueError):
            decoded: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_factor=1, **least)
            return decoded
    return np.asarray(_to_rgb(image))


def _reduction(width: int, height: int, size: int) -> int:
    """By how much a JPEG can shrink while it is decoded and still be as large as its copy."""
    shrinks = max(width, height) / size
    return next((scale for scale in REDUCTIONS if scale <= shrinks), 1)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """What the camera stored with this EXIF orientation, the right way up."""
    match orientation:
        case 2:
            turned = pixels[:, ::-1]
        case 3:
            turned = pixels[::-1, ::-1]
        case 4:
            turned = pixels[::-1]
        case 5:
            turned = pixels.transpose(1, 0, 2)
        case 6:
            turned = np.rot90(pixels, 3)
        case 7:
            turned = pixels[::-1, ::-1].transpose(1, 0, 2)
        case 8:
            turned = np.rot90(pixels)
        case _:
            return pixels
    return np.ascontiguousarray(turned)


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
