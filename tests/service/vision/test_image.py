import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from service.errors import CorruptImage, ImageTooLarge, NotAnImage
from service.vision.image import decode_image, decode_to_fit
from service.vision.letterbox import Letterbox
from tests.service.pictures import encoded, gradient, jpeg, png

LIMIT = 1_000_000


def decode(data: bytes) -> np.ndarray:
    pixels = decode_image(data, LIMIT)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    return pixels


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": 1})])
def test_lossless_formats_keep_every_pixel(form, options):
    image = gradient(20, 10)
    np.testing.assert_array_equal(decode(encoded(image, form, **options)), np.asarray(image))


def test_jpeg_is_close():
    difference = decode(jpeg(64, 32)).astype(int) - np.asarray(gradient(64, 32))
    assert np.abs(difference).mean() < 3


def test_every_exif_orientation_gives_the_upright_picture():
    upright = np.asarray(gradient(20, 10))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(np.ascontiguousarray(pixels)), "PNG", exif=exif)
        np.testing.assert_array_equal(decode(data), upright, err_msg=str(orientation))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded_to_the_pixels_that_pillow_sees(mode, progressive):
    noise = np.random.default_rng(4).integers(0, 256, (61, 83, 3), np.uint8)
    data = encoded(Image.fromarray(noise).convert(mode), "JPEG", progressive=progressive)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_of_any_orientation_is_upright_at_full_and_at_reduced_size(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(gradient(200, 80), "JPEG", exif=exif, quality=95)
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(decode(data), np.asarray(upright))
    photo = decode_to_fit(data, LIMIT, 50)
    assert (photo.width, photo.height) == upright.size
    assert photo.pixels.shape[1::-1] == tuple(side // 4 for side in upright.size)
    small = np.asarray(upright.resize(photo.pixels.shape[1::-1], Image.Resampling.BOX), int)
    assert np.abs(photo.pixels.astype(int) - small).mean() < 2


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([32, 64, 100]))
def test_a_reduced_jpeg_is_never_smaller_than_its_copy(width, height, size):
    photo = decode_to_fit(encoded(Image.new("RGB", (width, height)), "JPEG"), LIMIT, size)
    assert (photo.width, photo.height) == (width, height)
    copy = Letterbox.fit(width, height, size, "centre")
    kept = photo.pixels.shape
    assert kept[0] >= min(height, copy.height)
    assert kept[1] >= min(width, copy.width)
    if max(width, height) >= 2 * size:
        assert max(kept) <= max(width, height) // 2 + 1


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_not_reduced(form):
    photo = decode_to_fit(encoded(gradient(200, 80), form), LIMIT, 50)
    assert photo.pixels.shape == (80, 200, 3)


def test_a_jpeg_with_bytes_to_spare_is_read_as_pillow_reads_it():
    """Cameras leave a few before the end; the quicker decoder warns, and is not asked again."""
    data = jpeg(64, 32)
    spared = data[:-2] + bytes(40) + data[-2:]
    with Image.open(io.BytesIO(spared)) as image:
        np.testing.assert_array_equal(decode(spared), np.asarray(image))


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded():
    data = encoded(gradient(64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    bomb = data[:last] + data[last:-2] * 200 + data[-2:]
    with pytest.raises(CorruptImage, match="scans"):
        decode(bomb)


def two_pictures(data: bytes) -> bytes:
    """The same JPEG as cameras write two in one file: the index of both behind its start."""
    entries = struct.pack(">IIIHH", 0x030000, 100, 0, 0, 0) * 2
    index = b"MM\0*" + struct.pack(">IH", 8, 3)
    index += struct.pack(">HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(">HHII", 0xB001, 4, 1, 2)
    index += struct.pack(">HHII", 0xB002, 7, len(entries), 50) + bytes(4)
    content = b"MPF\0" + index + entries
    return data[:2] + b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content + data[2:]


def test_a_jpeg_of_two_pictures_is_read_and_reduced_like_another():
    data = jpeg(200, 80)
    both = two_pictures(data)
    with Image.open(io.BytesIO(both)) as image:
        assert image.format == "MPO"
    np.testing.assert_array_equal(decode(both), decode(data))
    assert decode_to_fit(both, LIMIT, 50).pixels.shape == (20, 50, 3)


def test_endless_scans_are_found_in_a_jpeg_of_two_pictures_too():
    data = encoded(gradient(64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    bomb = data[:last] + data[last:-2] * 200 + data[-2:]
    with pytest.raises(CorruptImage, match="scans"):
        decode(two_pictures(bomb))


def test_the_larger_the_picture_the_fewer_its_scans():
    """Twenty passes over as many pixels as are allowed, and a hundred at most."""
    data = encoded(gradient(100, 100), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    many = data[:last] + data[last:-2] * 40 + data[-2:]
    assert decode_image(many, 100 * 100 * 10).shape == (100, 100, 3)
    with pytest.raises(CorruptImage, match="more than 20 scans"):
        decode_image(many, 100 * 100)
    assert decode_image(data, 100 * 100).shape == (100, 100, 3)


def small_png(extra: bytes = b"", pixels: bytes = b"") -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
    rows = png_chunk(b"IDAT", zlib.compress(bytes(14)))
    end = png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + rows + end


def run_lengths(runs: bytes) -> bytes:
    """A BMP of 1000x1000 whose pixels are counted, not listed."""
    head = b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078)
    sizes = (40, 1000, 1000, 1, 8, 1, len(runs), 1, 1, 256, 256)
    return head + struct.pack("<IiiHHIIiiII", *sizes) + bytes(1024) + runs


CRUMBS = {
    "PNG chunks": lambda: small_png(extra=png_chunk(b"teSt", b"") * 100_000),
    "PNG pixels": lambda: small_png(pixels=png_chunk(b"IDAT", b"") * 100_000),
    "JPEG comments": lambda: jpeg()[:2] + b"\xff\xfe\0\2" * 100_000 + jpeg()[2:],
    "JPEG filling": lambda: jpeg()[:2] + b"\xff" * 200_000 + jpeg()[2:],
    "BMP run lengths": lambda: run_lengths(b"\1\0" * 200_000),
}


@pytest.mark.parametrize("make", CRUMBS.values(), ids=CRUMBS)
def test_a_picture_in_a_hundred_thousand_pieces_is_refused(make):
    """Each is a turn of Pillow's loops in Python: 20 MiB of them would take half a minute."""
    data = make()
    with pytest.raises(CorruptImage) as caught:
        decode(data)
    assert "pieces" in str(caught.value.__cause__)


def test_run_lengths_are_read():
    assert decode(run_lengths((b"\xfa\0" * 4 + b"\0\0") * 1000)).shape == (1000, 1000, 3)


def test_grey_becomes_three_equal_channels():
    grey = gradient(20, 10).convert("L")
    pixels = decode(encoded(grey, "PNG"))
    for channel in range(3):
        np.testing.assert_array_equal(pixels[:, :, channel], np.asarray(grey))


def test_one_bit_becomes_black_and_white():
    image = Image.new("1", (8, 8))
    image.putpixel((3, 4), 1)
    pixels = decode(encoded(image, "PNG"))
    assert pixels[4, 3].tolist() == [255, 255, 255]
    assert pixels.sum() == 3 * 255


def test_sixteen_bits_keep_their_high_byte():
    deep = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    pixels = decode(encoded(Image.fromarray(deep), "PNG"))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_a_palette_is_looked_up():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert decode(encoded(image, "PNG"))[0, 0].tolist() == [10, 200, 30]


def test_a_transparent_palette_entry_shows_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    data = encoded(image, "PNG", transparency=1)
    assert decode(data)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("RGBA", (200, 0, 0, 255), [200, 0, 0]),
        ("RGBA", (200, 0, 0, 0), [255, 255, 255]),
        ("RGBA", (0, 0, 0, 51), [204, 204, 204]),
        ("LA", (100, 255), [100, 100, 100]),
        ("LA", (100, 0), [255, 255, 255]),
    ],
)
def test_transparency_lies_on_white(mode, colour, seen):
    pixels = decode(encoded(Image.new(mode, (4, 4), colour), "PNG"))
    np.testing.assert_allclose(pixels[0, 0], seen, atol=1)


def test_cmyk_becomes_rgb():
    pixels = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = pixels[8, 8].tolist()
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("data", [b"", b"hello", b"GIF89a" + bytes(50), b"%PDF-1.7", b"<svg/>"])
def test_other_data_is_no_image(data):
    with pytest.raises(NotAnImage):
        decode(data)


def test_another_image_format_is_no_image():
    with pytest.raises(NotAnImage):
        decode(encoded(gradient(8, 8), "TIFF"))


@pytest.mark.parametrize("make", [jpeg, png])
def test_a_truncated_image_is_corrupt(make):
    data = make()
    with pytest.raises(CorruptImage):
        decode(data[: len(data) // 2])


def test_a_png_with_a_flipped_byte_is_corrupt():
    data = bytearray(png())
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(CorruptImage):
        decode(bytes(data))


def test_the_limit_is_the_largest_that_passes():
    data = encoded(Image.new("L", (10, 10)), "PNG")
    assert decode_image(data, 100).shape == (10, 10, 3)
    with pytest.raises(ImageTooLarge, match="10x10"):
        decode_image(data, 99)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


@pytest.mark.parametrize("side", [1001, 60_000])
def test_a_bomb_is_refused_by_its_header(side):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    with pytest.raises(ImageTooLarge):
        decode(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b""))


@settings(max_examples=150)
@given(st.data())
def test_mangled_images_raise_nothing_but_service_errors(data):
    form = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]))
    mangled = bytearray(encoded(gradient(16, 12), form))
    for _ in range(data.draw(st.integers(1, 6))):
        mangled[data.draw(st.integers(0, len(mangled) - 1))] = data.draw(st.integers(0, 255))
    with suppress(NotAnImage, ImageTooLarge, CorruptImage):  # the client's fault, each a 4xx
        assert decode_image(bytes(mangled), LIMIT).size > 0
