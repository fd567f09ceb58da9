"""Hostile images from a seeded generator: broken, decompression bombs, endless, in two formats."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final

import numpy as np
from PIL import Image

from bench.robustness.containers import (
    PNG_SIGNATURE,
    after_start,
    as_first_of_two,
    jpeg_segment,
    png,
    png_chunk,
    repeat_last_scan,
    run_length_bmp,
    webp,
)
from zoo import bundle

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")
HUGE: Final = (20_000, 30_000, 65_500)
TYPES: Final = tuple(range(14))  # of EXIF values: 1 to 12, and one more on each side


@dataclass(frozen=True, slots=True)
class Picture:
    family: str
    data: bytes


def hostile(random: Random) -> Picture:
    """The family is drawn first, so that all are equally frequent."""
    family = random.choice(list(FAMILIES))
    return Picture(family, FAMILIES[family](random))


@cache
def valid(form: str, number: int = 0, side: int = 160) -> bytes:
    """A sample photo, shrunk to `side` pixels and encoded as `form`."""
    photos = sorted(bundle.SAMPLES.glob("*.jpg"))
    with Image.open(photos[number % len(photos)]) as photo:
        photo.thumbnail((side, side))
        return _encoded(photo.convert("RGB"), form)


def mutated(random: Random) -> bytes:
    data = bytearray(_any_valid(random))
    for _ in range(random.choice((1, 1, 3, 20))):
        at = random.randrange(len(data) if random.random() < 0.5 else min(len(data), 400))
        match random.randrange(4):
            case 0:
                data[at] = random.randrange(256)
            case 1:
                data[at] = random.choice((0, 0x7F, 0x80, 0xFF))
            case 2:
                del data[at : at + random.randrange(1, 9)]
            case _:
                data[at:at] = random.randbytes(random.randrange(1, 9))
    return bytes(data)


def spliced(random: Random) -> bytes:
    """The start of one image and the end of another."""
    one, other = _any_valid(random), _any_valid(random)
    return one[: random.randrange(len(one))] + other[random.randrange(len(other)) :]


def truncated(random: Random) -> bytes:
    data = _any_valid(random)
    return data[: random.randrange(min(len(data), random.choice((40, 10**9))))]


def bomb_header(random: Random) -> bytes:
    """Announces hundreds of millions of pixels in a few bytes."""
    width, height = random.choice(HUGE), random.choice(HUGE)
    match random.choice(FORMATS):
        case "PNG":
            return png(width, height, zlib.compress(bytes(1000)))
        case "JPEG":
            data = bytearray(valid("JPEG"))
            at = data.index(b"\xff\xc0") + 5
            data[at : at + 4] = struct.pack(">HH", height, width)
            return bytes(data)
        case "WEBP":
            canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
            return webp((b"VP8X", bytes(4) + canvas), (b"VP8 ", bytes(20)))
        case _:
            sizes = random.choice(((width, height), (2**31 - 1, -(2**31)), (-5, 7), (0, 0)))
            return (
                b"BM"
                + struct.pack("<IHHI", 54, 0, 0, 54)
                + struct.pack(
                    "<IiiHHIIiiII", 40, *sizes, 1, random.choice((1, 8, 24, 32, 99)), *[0] * 6
                )
            )


def bomb_chunk(random: Random) -> bytes:
    """Megabytes of compressed zeros in a colour profile or text chunk of a small PNG."""
    zeros = _zeros(random.choice((1, 64)) * 2**20)
    kind, start = random.choice(
        (
            (b"iCCP", b"icc\0\0"),
            (b"zTXt", b"Comment\0\0"),
            (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
        )
    )
    many = 70 if random.random() < 0.1 else 1
    return png(8, 8, extra=png_chunk(kind, start + zeros) * many)


def scans(random: Random) -> bytes:
    """A progressive JPEG that repeats its last scan; half of them claim to contain two images."""
    side = 1500 if random.random() < 0.1 else 64
    data = repeat_last_scan(_progressive(side), random.choice((80, 150, 3000)))
    return data if random.random() < 0.5 else as_first_of_two(data)


def tiny_pieces(random: Random) -> bytes:
    """Hundreds of thousands of chunks, markers or runs that are (nearly) empty."""
    many = 200_000 if random.random() < 0.1 else 1000
    match random.randrange(5):
        case 0:
            return png(8, 8, extra=png_chunk(b"teSt") * many)
        case 1:
            return png(8, 8)[:33] + png_chunk(b"IDAT") * many
        case 2:
            return after_start(valid("JPEG"), b"\xff\xfe\0\2" * many)
        case 3:
            return after_start(valid("JPEG"), b"\xff" * many)
        case _:
            return run_length_bmp(1000, 1000, b"\1\0" * many)


def exif(random: Random) -> bytes:
    """Absurd metadata: huge counts, loops, wrong offsets, orientations that do not exist."""
    order = random.choice("<>")
    tags = random.choice((1, 3, 30, 300, 2000))
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    block += struct.pack(order + "H", min(65_535, tags + random.choice((0, 0, 9, 60_000))))
    for number in range(tags):
        tag = 0x0112 if number == 0 else random.choice((number, 0x8769, 0x8825, 0xA005, 0xC4A5))
        kind = 3 if number == 0 else random.choice(TYPES)
        count = random.choice((0, 1, 1, 1, 2, 30_000, 2**32 - 1))
        value = random.choice((0, 1, 6, 8, 9, 65_535, 2**31, 2**32 - 1))
        short = struct.pack(order + "HH", value & 0xFFFF, 0)
        block += struct.pack(order + "HHI", tag, kind, count)
        block += short if kind == 3 else struct.pack(order + "I", value)
    next_directory = random.choice((0, 8, 8, 2**31))  # 8: this one
    block += struct.pack(order + "I", next_directory)
    match random.randrange(4):
        case 0:
            parts = (block[at : at + 65_000] for at in range(0, len(block), 65_000))
            return after_start(
                valid("JPEG"), b"".join(jpeg_segment(0xE1, b"Exif\0\0" + part) for part in parts)
            )
        case 1:
            return png(8, 8, extra=png_chunk(b"eXIf", block))
        case 2:
            text = b"Raw profile type exif\0\0" + zlib.compress(
                b"\nexif\n 9\n" + block.hex().encode()
            )
            return png(8, 8, extra=png_chunk(b"zTXt", text))
        case _:
            flags = bytes([0x08, 0, 0, 0]) + (159).to_bytes(3, "little") * 2
            return webp((b"VP8X", flags), (b"VP8 ", valid("WEBP")[20:]), (b"EXIF", block))


def polyglot(random: Random) -> bytes:
    """An image and another format in one file."""
    data = _any_valid(random)
    html = b"<html><script>alert(1)</script></html>"
    match random.randrange(6):
        case 0:
            return after_start(valid("JPEG"), jpeg_segment(0xFE, html))
        case 1:
            return data + html
        case 2:
            return data + b"PK\3\4" + random.randbytes(200) + b"PK\5\6" + bytes(18)
        case 3:
            return after_start(valid("JPEG"), jpeg_segment(0xFE, b"GIF89a" + random.randbytes(50)))
        case 4:
            return b"GIF89a" + data
        case _:
            return data + valid("JPEG", 1) + valid("PNG", 2)


def extreme(random: Random) -> bytes:
    """Valid images of extreme sizes and unusual colour modes."""
    sizes = ((1, 1), (1, 2), (20_000, 1), (1, 20_000), (3, 16_000), (2000, 2000))
    form = random.choice(FORMATS)
    size = random.choice(sizes[:2] if form == "WEBP" else sizes)
    modes = {"JPEG": ("L", "RGB", "CMYK"), "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")}
    mode = random.choice(modes.get(form, ("RGB",)))
    return _encoded(Image.new(mode, size, 1), form)


def nonsense(random: Random) -> bytes:
    """Random bytes, most of them behind the signature of a format."""
    start = random.choice(
        (
            *(b"", b"\0", b"%PDF-1.7\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a"),
            *(PNG_SIGNATURE, b"\xff\xd8\xff", b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"BM"),
            b"II*\0\x08\0\0\0",
            *(b"\0\0\0\x20ftypavif", b"\x1f\x8b\x08", b"PK\3\4", b"8BPS\0\1", b"\0\0\1\0\1\0"),
        )
    )
    return start + random.randbytes(random.choice((0, 1, 30, 5000)))


FAMILIES: Final[dict[str, Callable[[Random], bytes]]] = {
    "mutated": mutated,
    "spliced": spliced,
    "truncated": truncated,
    "bomb in the header": bomb_header,
    "bomb in a chunk": bomb_chunk,
    "endless scans": scans,
    "tiny pieces": tiny_pieces,
    "absurd EXIF": exif,
    "polyglot": polyglot,
    "extreme sizes": extreme,
    "nonsense": nonsense,
}


def _any_valid(random: Random) -> bytes:
    return valid(random.choice(FORMATS), random.randrange(4))


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@cache
def _zeros(count: int) -> bytes:
    return zlib.compress(bytes(count), 9)


@cache
def _progressive(side: int) -> bytes:
    ramp = np.add.outer(np.arange(side), np.arange(side)).astype(np.uint8)
    return _encoded(Image.fromarray(ramp).convert("RGB"), "JPEG", progressive=True)
