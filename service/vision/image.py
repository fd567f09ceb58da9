"""Untrusted bytes -> upright RGB pixels."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from service.errors import (
    CorruptImage,
    ImageTooLarge,
    ImageTooNarrow,
    NotAnImage,
    OutOfMemory,
)
from service.vision.input_size import InputSize

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
JPEGS: Final = {"JPEG", "MPO"}  # an MPO file holds several JPEGs; the first one is read
MAX_PIXELS: Final = 178_000_000  # Pillow itself refuses more, as a decompression bomb
MAX_SIDE: Final = 65_535  # pixels: a JPEG's own limit; a decoder takes time for each row
REDUCTIONS: Final = (8, 4, 2)  # factors at which libjpeg decodes a smaller image in less time
RUN_LENGTH_ENCODED: Final = (1, 2)  # BMP's compressions RLE8 and RLE4
START_OF_SCAN: Final = 0xDAFF  # the bytes FF DA, read as one number with the low byte first
COUNTED: Final = 2**19  # pairs of bytes in which scans are counted at a time
# A progressive JPEG has about ten scans. Each is a pass over all pixels, and a bomb has thousands.
MAX_SCANS: Final = 100
MAX_PASSES: Final = 20  # over as many pixels as an image may have
# Pillow reads an image of 20 MiB in 320 pieces, and a PNG of small chunks in some ten thousand.
MAX_READS: Final = 100_000
STRIP_PIXELS: Final = 2**18  # converted at a time, for Pillow holds the GIL meanwhile
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

# Bytes that a pixel takes at the peak. Measured: bench/robustness/hostile.py --costs
DECODED: Final = 7  # Pillow's image of 4 bytes and the array of 3; so does a resize of the array
DECODED_WEBP: Final = 16  # two canvases of libwebp, a frame, and Pillow's image
DRAWN: Final = 10  # the array, a copy to draw on, and the encoded picture
COEFFICIENT: Final = 2  # of each channel, if a JPEG comes in several scans: all are kept
STRIP: Final = 22  # layers of a strip

Pixels = NDArray[np.uint8]  # [height,width,3] RGB


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """u8[h,w,3] RGB, upright, and the size of the source image, which may be larger.

    canvas: u8[1,height,width,3] that the image was decoded into; `pixels` is a part of it.
    """

    pixels: Pixels
    width: int
    height: int
    canvas: NDArray[np.uint8] | None = None

    @classmethod
    def from_pixels(cls, pixels: Pixels) -> Self:
        """A photo that is not reduced."""
        return cls(pixels, pixels.shape[1], pixels.shape[0])


# Width and height of a source image, columns and rows of its pixels -> the photo to decode into,
# whose pixels are contiguous and not written yet; None if there is none for these.
Room = Callable[[int, int, int, int], Photo | None]


class EncodedImage:
    """An image of which the header has been read: `cost` is known before a pixel is decoded."""

    def __init__(
        self,
        data: bytes,
        max_pixels: int,
        target: InputSize | None = None,
        room: Room = lambda *size: None,
    ) -> None:
        """`room` is for an upright JPEG. Raises what `decode_image` raises for a header."""
        image = _open(data, max_pixels)
        self.width, self.height = image.size
        shrinks = _least_shrink(self.width, self.height, target)
        _limit_sides(self.width, self.height, target, shrinks)
        self._data = data
        self._room = room
        self._image = image
        self._is_jpeg = image.format in JPEGS
        self._scans = _count_scans(image, data, max_pixels) if self._is_jpeg else 1
        reductions = REDUCTIONS if self._is_jpeg else ()
        self._scale = next((each for each in reductions if each <= shrinks), 1)

    def cost(self, drawn: bool = False) -> int:
        """Bytes at the peak of decoding, orienting and resizing; `drawn`: at full size too."""
        pixels = self.width * self.height
        each = DECODED_WEBP if self._image.format == "WEBP" else DECODED
        kept = COEFFICIENT * len(self._image.getbands()) * pixels if self._scans > 1 else 0
        columns, rows = self._decoded
        at_full_size = max(each * pixels + kept, DRAWN * pixels) if drawn else 0
        return max(each * columns * rows + kept, at_full_size) + STRIP * min(STRIP_PIXELS, pixels)

    def decode(self) -> Photo:
        """The pixels; raises CorruptImage or OutOfMemory. An image is decoded once."""
        image, width, height = self._image, self.width, self.height
        del self._image  # its pixels are freed before the array is oriented
        try:
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
            blank = self._room(width, height, *self._decoded) if turn is None else None
            pixels = self._pixels(image, None if blank is None else blank.pixels)
        except MemoryError as exc:
            raise OutOfMemory("there is not enough memory to decode the image") from exc
        except Exception as exc:  # hostile data can raise nearly anything in a decoder
            raise CorruptImage("the image is truncated or corrupt") from exc
        del image
        if blank is not None and pixels is blank.pixels:
            return blank
        swap, down, right = turn or (False, 1, 1)
        if swap:
            pixels, width, height = pixels.transpose(1, 0, 2), height, width
        return Photo(np.ascontiguousarray(pixels[::down, ::right]), width, height)

    @property
    def _decoded(self) -> tuple[int, int]:
        """Columns and rows of the pixels, as stored."""
        return -(-self.width // self._scale), -(-self.height // self._scale)

    def _pixels(self, image: Image.Image, blank: Pixels | None) -> Pixels:
        """u8[h,w,3] as stored, before its orientation is applied; `blank` itself if it is used."""
        if not self._is_jpeg:
            return _rgb(image)
        if image.mode in {"RGB", "L"}:
            width, height = self._decoded
            # simplejpeg raises where libjpeg only warns; Pillow then decides.
            with contextlib.suppress(ValueError):
                decoded: Pixels = simplejpeg.decode_jpeg(
                    self._data,
                    "RGB",
                    min_factor=1,
                    min_width=width,
                    min_height=height,
                    buffer=None if blank is None else blank.reshape(-1),
                )
                return blank if blank is not None and decoded.shape == blank.shape else decoded
        image.draft(None, (image.width // self._scale, image.height // self._scale))
        return _rgb(image)


def decode_image(data: bytes, max_pixels: int, target: InputSize | None = None) -> Photo:
    """Decode a JPEG, PNG, WebP or BMP and apply its EXIF orientation.

    With a `target`, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where it still has the pixels
    of its letterboxed copy. Transparent pixels become white.

    Raises NotAnImage for other data; ImageTooLarge, before any pixel is decoded, when the header
    announces more than `max_pixels` or a longer side than MAX_SIDE; ImageTooNarrow when the image
    would be thinner than a pixel in the target; CorruptImage when the pixels cannot be read;
    OutOfMemory.
    """
    return EncodedImage(data, max_pixels, target).decode()


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
    except MemoryError as exc:
        raise OutOfMemory("there is not enough memory to read the image") from exc
    except Exception as exc:  # hostile data can raise nearly anything in a parser
        raise CorruptImage("the image's header cannot be read") from exc
    # Pillow decodes it in a loop in Python, in which a file of 1 KB can take seconds.
    if image.format == "BMP" and image.info.get("compression") in RUN_LENGTH_ENCODED:
        raise NotAnImage("a BMP must not be run-length encoded")
    if image.width * image.height > max_pixels:
        size = f"{image.width}x{image.height}"
        raise ImageTooLarge(f"the image is {size}, more than {max_pixels} pixels")
    return image


def upright_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height of an image, by its header; raises what `decode_image` raises for one."""
    image = _open(data, max_pixels)
    swap, _, _ = UPRIGHT.get(image.getexif().get(ORIENTATION, 1), (False, 1, 1))
    return (image.height, image.width) if swap else image.size


def _least_shrink(width: int, height: int, target: InputSize | None) -> float:
    """How much an image shrinks at least to fit the target, upright or as it is stored."""
    if target is None:
        return 1
    return min(target.shrink(width, height), target.shrink(height, width))


def _limit_sides(width: int, height: int, target: InputSize | None, shrinks: float) -> None:
    """Raise ImageTooLarge or ImageTooNarrow."""
    if max(width, height) > MAX_SIDE:
        raise ImageTooLarge(f"the image is {width}x{height}; a side may have {MAX_SIDE} pixels")
    if target is not None and min(width, height) < shrinks:
        raise ImageTooNarrow(
            f"the image is {width}x{height}; scaled to the model's {target} pixels it would be "
            "thinner than one"
        )


def _count_scans(image: Image.Image, data: bytes, max_pixels: int) -> int:
    """The number of scans of a JPEG; raises CorruptImage for too many for its size.

    libjpeg-turbo has such a limit (TJPARAM_SCANLIMIT); neither Pillow nor simplejpeg can set it.
    """
    limit = min(MAX_SCANS, MAX_PASSES * max_pixels // max(1, image.width * image.height))
    # NumPy counts them at even and at odd places in a sixth of the time of bytes.count.
    places = (np.frombuffer(data, "<u2", (len(data) - odd) // 2, odd) for odd in (0, 1))
    count = sum(
        int(np.count_nonzero(pairs[start : start + COUNTED] == START_OF_SCAN))
        for pairs in places
        for start in range(0, len(pairs), COUNTED)
    )
    if count > limit:
        raise CorruptImage(f"the image has more than {limit} scans")
    return count


def _rgb(image: Image.Image) -> Pixels:
    """u8[h,w,3]; converted in strips, so that no layer is as large as the image."""
    width, height = image.size
    rows = max(1, STRIP_PIXELS // width)
    if height <= rows:
        return np.asarray(_to_rgb(image))
    image.load()
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = np.asarray(_to_rgb(strip))
    return pixels


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
