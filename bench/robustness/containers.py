"""Image files assembled chunk by chunk, valid or invalid."""

import struct
import zlib
from typing import Final

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def png_chunk(kind: bytes, content: bytes = b"") -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width: int, height: int, pixels: bytes | None = None, extra: bytes = b"") -> bytes:
    """RGB and black, unless compressed `pixels` are given; `extra` chunks follow the header."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    if pixels is None:
        pixels = zlib.compress(bytes((3 * width + 1) * height))
    return PNG_SIGNATURE + header + extra + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND")


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def run_length_bmp(width: int, height: int, runs: bytes) -> bytes:
    """A BMP with run-length encoded pixels."""
    offset = 54 + 1024
    head = b"BM" + struct.pack("<IHHI", offset + len(runs), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 1, 1, 256, 256)
    return head + info + bytes(1024) + runs


def as_first_of_two(jpeg: bytes) -> bytes:
    """With a Multi-Picture Format index, by which Pillow reads the first of two images (MPO)."""
    entries = struct.pack(">IIIHH", 0x030000, 100, 0, 0, 0) * 2
    index = b"MM\0*" + struct.pack(">IH", 8, 3)
    index += struct.pack(">HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(">HHII", 0xB001, 4, 1, 2)
    index += struct.pack(">HHII", 0xB002, 7, len(entries), 50) + bytes(4)
    return after_start(jpeg, jpeg_segment(0xE2, b"MPF\0" + index + entries))


def after_start(jpeg: bytes, content: bytes) -> bytes:
    """With `content` after the marker that starts the image."""
    return jpeg[:2] + content + jpeg[2:]


def repeat_last_scan(jpeg: bytes, count: int) -> bytes:
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * count + jpeg[-2:]


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
