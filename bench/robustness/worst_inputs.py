"""The inputs that cost a server most by the byte: images, and bodies that have to be parsed."""

import base64
import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from PIL import Image

from bench.load import BOUNDARY, MULTIPART, form, post
from bench.robustness.containers import PNG_SIGNATURE, png_chunk, repeat_last_scan, webp
from bench.robustness.hostile_images import valid

SIDE: Final = 7071  # squared: the default limit of pixels
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # PNG's colour types
CHANNELS: Final = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
MIB: Final = 2**20
BODY: Final = 20 * MIB - 1000  # just below the default limit
OIP: Final = "/v2/models/{}/infer"


@dataclass(frozen=True, slots=True)
class Input:
    """`request` makes an HTTP request for the name of the served model."""

    name: str
    request: Callable[[str], bytes]


def worst_inputs() -> Iterator[Input]:
    for name, make in IMAGES.items():
        yield Input(name, partial(_detect, make, "*/*"))
    for name, (make, accept) in DRAWN.items():
        yield Input(name, partial(_detect, make, accept))
    for name, request in BODIES.items():
        yield Input(name, request)


def blank_png(
    width: int, height: int, kind: int = RGB, depth: int = 8, interlaced: bool = False
) -> bytes:
    """All zeros."""
    packer, packed = zlib.compressobj(9), []
    for columns, rows in _lines(width, height, interlaced):
        line = bytes(1 + -(-columns * CHANNELS[kind] * depth // 8))
        many = max(1, MIB // len(line))
        packed += [packer.compress(line * many) for _ in range(rows // many)]
        packed.append(packer.compress(line * (rows % many)))
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    palette = png_chunk(b"PLTE", bytes(3 * 256)) + png_chunk(b"tRNS", bytes(256))
    return (
        PNG_SIGNATURE
        + png_chunk(b"IHDR", header)
        + (palette if kind == PALETTE else b"")
        + png_chunk(b"IDAT", b"".join(packed))
        + png_chunk(b"IEND")
    )


def _lines(width: int, height: int, interlaced: bool) -> list[tuple[int, int]]:
    """Columns and rows of each pass."""
    if not interlaced:
        return [(width, height)]
    passes = [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4)]
    passes += [(0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)]
    return [
        (-(-(width - left) // right), -(-(height - top) // down))
        for left, right, top, down in passes
    ]


def blank_webp(width: int, height: int) -> bytes:
    """One colour, lossless: its prefix codes have one symbol each, so a pixel takes no bits."""
    return webp((b"VP8L", _vp8l(width, height)))


def blank_animation(width: int, height: int) -> bytes:
    """A large canvas and a frame of one pixel."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    pixel = _vp8l(1, 1)
    pixel += bytes(len(pixel) % 2)
    frame = bytes(6) + bytes(6) + (100).to_bytes(3, "little") + b"\0"
    image = b"VP8L" + struct.pack("<I", len(pixel)) + pixel
    return webp(
        (b"VP8X", bytes([0x12, 0, 0, 0]) + canvas), (b"ANIM", bytes(6)), (b"ANMF", frame + image)
    )


def _vp8l(width: int, height: int) -> bytes:
    """https://developers.google.com/speed/webp/docs/webp_lossless_bitstream_specification"""
    fields = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (1, 1), (0, 3)]
    fields += [(0, 1)] * 3  # no transform, no colour cache, one group of prefix codes
    fields += [(1, 1), (0, 1), (0, 1), (0, 1)] * 5  # simple, one symbol, of one bit: 0
    number = shift = 0
    for value, bits in fields:
        number |= value << shift
        shift += bits
    return number.to_bytes(-(-shift // 8), "little")


def bmp(width: int, height: int, depth: int, compression: int, pixels: bytes) -> bytes:
    colours = 0 if depth > 8 else 2**depth
    offset = 54 + 4 * colours
    head = b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset)
    sizes = (40, width, height, 1, depth, compression, len(pixels), 1, 1, colours, 0)
    return head + struct.pack("<IiiHHIIiiII", *sizes) + bytes(4 * colours) + pixels


def png_of_texts(count: int) -> bytes:
    """Each just below a MiB, with one character that makes Python store four bytes for each."""
    text = "\N{PILE OF POO}".encode() + b" " * (MIB - 10)
    chunk = png_chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(text, 9))
    return blank_png(8, 8)[:33] + chunk * count + blank_png(8, 8)[33:]


def _saved(mode: str, form: str, side: int = SIDE, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side), 0).save(buffer, form, **options)
    return buffer.getvalue()


def _oriented_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved("RGB", "JPEG", exif=exif)


IMAGES: Final[dict[str, Callable[[], bytes]]] = {
    "WebP lossless 8192x6100": lambda: blank_webp(8192, 6100),
    "WebP lossless 16383x3000": lambda: blank_webp(16383, 3000),
    "WebP lossless 5200x5200": lambda: blank_webp(5200, 5200),
    "WebP lossy 5200x5200": lambda: _saved("RGB", "WEBP", 5200, quality=0, method=0),
    "WebP lossy 7071x7071": lambda: _saved("RGB", "WEBP", quality=0, method=0),
    "WebP animation 16383x3000": lambda: blank_animation(16383, 3000),
    "PNG grey 1x50000000": lambda: blank_png(1, 50_000_000, GREY),
    "PNG grey 50000000x1": lambda: blank_png(50_000_000, 1, GREY),
    "PNG grey 65535x762": lambda: blank_png(65535, 762, GREY),
    "PNG grey 762x65535": lambda: blank_png(762, 65535, GREY),
    "PNG 1 bit": lambda: blank_png(SIDE, SIDE, GREY, 1),
    "PNG grey 16 bit": lambda: blank_png(SIDE, SIDE, GREY, 16),
    "PNG grey alpha": lambda: blank_png(SIDE, SIDE, GREY_ALPHA),
    "PNG palette alpha": lambda: blank_png(SIDE, SIDE, PALETTE),
    "PNG RGB": lambda: blank_png(SIDE, SIDE, RGB),
    "PNG RGB interlaced": lambda: blank_png(SIDE, SIDE, RGB, interlaced=True),
    "PNG RGBA": lambda: blank_png(SIDE, SIDE, RGBA),
    "PNG RGBA 16 bit": lambda: blank_png(SIDE, SIDE, RGBA, 16),
    "PNG of texts": lambda: png_of_texts(65),
    "BMP RLE8 of deltas": lambda: bmp(SIDE, SIDE, 8, 1, b"\0\2\xff\xff" * 250),
    "BMP RLE8 of line ends": lambda: bmp(65535, 762, 8, 1, (b"\1\0" + b"\0\0") * 762),
    "BMP RLE4 of runs": lambda: bmp(SIDE, SIDE, 4, 2, b"\xff\0" * 30000),
    "BMP 24 bit of 1 KB": lambda: bmp(SIDE, SIDE, 24, 0, bytes(1000)),
    "JPEG progressive": lambda: _saved("RGB", "JPEG", progressive=True),
    "JPEG of 20 scans": lambda: repeat_last_scan(_saved("RGB", "JPEG", progressive=True), 9),
    "JPEG CMYK": lambda: _saved("CMYK", "JPEG"),
    "JPEG to rotate": _oriented_jpeg,
}
DRAWN: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "JPEG, drawn as PNG": (lambda: _saved("RGB", "JPEG"), "image/png"),
    "PNG RGBA, drawn as JPEG": (lambda: blank_png(SIDE, SIDE, RGBA), "image/jpeg"),
}


def _detect(make: Callable[[], bytes], accept: str, model: str) -> bytes:
    return post("/v1/detect", "image/jpeg", make(), f"Accept: {accept}")


def _json(body: bytes, path: str = "/v1/detect", *headers: str) -> bytes:
    return post(path, "application/json", body, *headers)


def _filled(start: bytes, each: bytes, end: bytes) -> bytes:
    return start + each * ((BODY - len(start) - len(end)) // len(each)) + end


def _unknown_keys() -> bytes:
    return b"{" + b",".join(b'"%d":0' % n for n in range(1_500_000)) + b"}"


def _image_text(count: int = 1) -> str:
    """Base64 of bytes that are no image."""
    return base64.b64encode(bytes((BODY - 1000) // count * 3 // 4 - 100)).decode()


def _roboflow(model: str, image: object) -> bytes:
    return _json(
        json.dumps({"model_id": model, "image": image}).encode(), "/infer/object_detection"
    )


def _zipped(model: str, body: bytes) -> bytes:
    return _json(gzip.compress(body, 9), OIP.format(model), "Content-Encoding: gzip")


def _tensor(model: str, data: bytes) -> bytes:
    head = b'{"inputs":[{"name":"images","datatype":"FP32","shape":[1,3,64,64],"data":['
    return _filled(head, data, b"0]}]}")


def _form(data: bytes, preamble: bytes = b"") -> bytes:
    return post("/v1/detect", MULTIPART, form(data, preamble=preamble))


BODIES: Final[dict[str, Callable[[str], bytes]]] = {
    "gzip of lists on /v2": lambda model: _zipped(model, _tensor(model, b"[],")),
    "gzip of numbers on /v2": lambda model: _zipped(model, _tensor(model, b"0,")),
    "gzip of objects on /v2": lambda model: _zipped(model, _tensor(model, b"{},")),
    "gzip of unknown keys on /v2": lambda model: _zipped(model, _unknown_keys()),
    "gzip of zeros on /v2": lambda model: _zipped(model, bytes(BODY)),
    "JSON of unknown keys": lambda model: _json(_unknown_keys()),
    "JSON of nested lists": lambda model: _json(b'{"image":' + b"[" * BODY),
    "JSON of escapes": lambda model: _json(_filled(b'{"image":"', rb"\u0041", b'"}')),
    "JSON of one image": lambda model: _json(json.dumps({"image": _image_text()}).encode()),
    "Roboflow, lists": lambda model: _json(
        _filled(b'{"model_id":"a","image":[', b"[],", b"0]}"), "/infer/object_detection"
    ),
    "Roboflow, one image": lambda model: _roboflow(
        model, {"type": "base64", "value": _image_text()}
    ),
    "Roboflow, 16 images": lambda model: _roboflow(
        model, [{"type": "base64", "value": _image_text(16)}] * 16
    ),
    "form of almost boundaries": lambda model: _form(
        f"\r\n--{BOUNDARY[:-1]}".encode() * (BODY // 14)
    ),
    "form of line ends": lambda model: _form(b"\r" * BODY),
    "form of line ends before it": lambda model: _form(valid("JPEG"), b"\r\n" * (BODY // 2 - 9000)),
    "form of one image": lambda model: _form(bytes(BODY)),
}
