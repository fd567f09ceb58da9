import io
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from bench.robustness.containers import (
    after_start,
    as_first_of_two,
    png_chunk,
    repeat_last_scan,
    run_length_bmp,
)
from bench.robustness.containers import png as black_png
from service.errors import CorruptImage, ImageTooLarge, ImageTooNarrow, NotAnImage
from service.vision.image import decode_image, full_size
from service.vision.input_size import InputSize
from service.vision.letterbox import Letterbox
from tests.service.pictures import encoded, gradient, jpeg, png

LIMIT = 1_000_000
TARGETS = [32, 64, 100, "96x32", "64x128"]


def decode(data: bytes) -> np.ndarray:
    pixels = decode_image(data, LIMIT).pixels
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    return pixels


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": 1})])
def test_lossless_formats_keep_every_pixel_and_are_not_reduced(form, options):
    image = gradient(200, 80)
    data = encoded(image, form, **options)
    np.testing.assert_array_equal(decode(data), np.asarray(image))
    assert decode_image(data, LIMIT, target=InputSize.of(50)).pixels.shape == (80, 200, 3)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded_to_the_pixels_of_pillow(mode, progressive):
    noise = np.random.default_rng(4).integers(0, 256, (61, 83, 3), np.uint8)
    data = encoded(Image.fromarray(noise).convert(mode), "JPEG", progressive=progressive)
    np.testing.assert_array_equal(decode(data), by_pillow(data))


def test_a_jpeg_with_extra_bytes_before_its_end_is_decoded_by_pillow():
    """Cameras write such files; simplejpeg refuses them."""
    data = jpeg(64, 32)
    padded = data[:-2] + bytes(40) + data[-2:]
    np.testing.assert_array_equal(decode(padded), by_pillow(padded))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied_at_full_and_reduced_size(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form in ("PNG", "JPEG"):
        data = encoded(gradient(200, 80), form, exif=exif, quality=95)
        upright = by_pillow(data)
        np.testing.assert_array_equal(decode(data), upright)
    photo = decode_image(data, LIMIT, target=InputSize.of(50))
    assert (photo.height, photo.width) == upright.shape[:2]
    assert photo.pixels.shape == (photo.height // 4, photo.width // 4, 3)
    small = Image.fromarray(upright).resize(photo.pixels.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(photo.pixels.astype(int) - np.asarray(small)).mean() < 2
    np.testing.assert_array_equal(full_size(photo, data, LIMIT), upright)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from(TARGETS))
def test_a_reduced_jpeg_is_large_enough_for_the_input(width, height, written):
    size = InputSize.of(written)
    assume(min(width, height) >= size.shrink(width, height))  # thinner ones are refused
    photo = decode_image(encoded(Image.new("RGB", (width, height)), "JPEG"), LIMIT, size)
    assert (photo.width, photo.height) == (width, height)
    copy = Letterbox.fit(width, height, size, "centre")
    kept = photo.pixels.shape
    assert kept[0] >= min(height, copy.height)
    assert kept[1] >= min(width, copy.width)
    if size.shrink(width, height) >= 2 and size.shrink(height, width) >= 2:
        assert max(kept) <= max(width, height) // 2 + 1


def test_a_photo_at_full_size_is_not_decoded_again():
    photo = decode_image(png(), LIMIT, target=InputSize.of(50))
    assert full_size(photo, b"", LIMIT) is photo.pixels


def test_the_first_picture_of_an_mpo_is_decoded_and_reduced_like_any_jpeg():
    data = jpeg(200, 80)
    both = as_first_of_two(data)
    with Image.open(io.BytesIO(both)) as image:
        assert image.format == "MPO"
    np.testing.assert_array_equal(decode(both), decode(data))
    assert decode_image(both, LIMIT, target=InputSize.of(50)).pixels.shape == (20, 50, 3)


def with_more_scans(side: int, count: int) -> bytes:
    return repeat_last_scan(encoded(gradient(side, side), "JPEG", progressive=True), count)


@pytest.mark.parametrize("wrap", [bytes, as_first_of_two], ids=["JPEG", "MPO"])
def test_a_jpeg_with_hundreds_of_scans_is_refused(wrap):
    with pytest.raises(CorruptImage, match="scans"):
        decode(wrap(with_more_scans(64, 200)))


def test_a_larger_jpeg_may_have_fewer_scans():
    """Twenty passes over as many pixels as are allowed, and a hundred at most."""
    many, usual = with_more_scans(100, 40), with_more_scans(100, 1)
    assert decode_image(many, 100 * 100 * 10).pixels.shape == (100, 100, 3)
    with pytest.raises(CorruptImage, match="more than 20 scans"):
        decode_image(many, 100 * 100)
    assert decode_image(usual, 100 * 100).pixels.shape == (100, 100, 3)


TINY_PIECES = {
    "PNG chunks": lambda: black_png(2, 2, extra=png_chunk(b"teSt") * 100_000),
    "PNG pixels": lambda: black_png(2, 2, extra=png_chunk(b"IDAT") * 100_000),
    "JPEG comments": lambda: after_start(jpeg(), b"\xff\xfe\0\2" * 100_000),
    "JPEG filling": lambda: after_start(jpeg(), b"\xff" * 200_000),
}


@pytest.mark.parametrize("make", TINY_PIECES.values(), ids=TINY_PIECES)
def test_an_image_in_a_hundred_thousand_pieces_is_refused(make):
    """Pillow loops over them in Python: 20 MiB of such pieces would take half a minute."""
    with pytest.raises(CorruptImage) as caught:
        decode(make())
    assert "pieces" in str(caught.value.__cause__)


def test_a_bmp_in_run_length_encoding_is_refused_by_its_header():
    """Pillow decodes it in Python: 1 KB of line ends would take seconds and hold the GIL."""
    with pytest.raises(NotAnImage, match="run-length"):
        decode(run_length_bmp(1000, 1000, (b"\xfa\0" * 4 + b"\0\0") * 1000))


def palette() -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    return image


def one_bit() -> Image.Image:
    image = Image.new("1", (4, 4))
    image.putpixel((2, 1), 1)
    return image


def deep_grey(value: int) -> Image.Image:
    return Image.fromarray(np.full((4, 4), value, np.uint16))


@pytest.mark.parametrize(
    ("image", "options", "colour"),
    [
        (one_bit(), {}, [255, 255, 255]),
        (Image.new("L", (4, 4), 77), {}, [77, 77, 77]),
        *[
            (deep_grey(value), {}, [value // 256] * 3)  # 16 bits keep their high byte
            for value in (255, 256, 65535)
        ],
        (palette(), {}, [10, 200, 30]),
        (palette(), {"transparency": 1}, [255, 255, 255]),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 255)), {}, [200, 0, 0]),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 51)), {}, [204, 204, 204]),
        (Image.new("LA", (4, 4), (100, 0)), {}, [255, 255, 255]),
    ],
)
def test_every_colour_mode_becomes_rgb_on_white(image, options, colour):
    pixels = decode(encoded(image, "PNG", **options))
    np.testing.assert_allclose(pixels[1, 2], colour, atol=1 if image.mode in {"RGBA", "LA"} else 0)


def test_cmyk_becomes_rgb():
    pixels = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    red, green, blue = pixels[8, 8].tolist()
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"GIF89a" + bytes(50), b"%PDF-1.7", b"<svg/>", encoded(gradient(8, 8), "TIFF")],
)
def test_other_data_is_not_an_image(data):
    with pytest.raises(NotAnImage):
        decode(data)


def flipped_byte(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "data", [jpeg()[: len(jpeg()) // 2], png()[: len(png()) // 2], flipped_byte(png())]
)
def test_a_damaged_image_is_corrupt(data):
    with pytest.raises(CorruptImage):
        decode(data)


def test_an_image_may_have_as_many_pixels_as_the_limit():
    data = encoded(Image.new("L", (10, 10)), "PNG")
    assert decode_image(data, 100).pixels.shape == (10, 10, 3)
    with pytest.raises(ImageTooLarge, match="10x10"):
        decode_image(data, 99)


@pytest.mark.parametrize("side", [1001, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(side):
    with pytest.raises(ImageTooLarge):
        decode(black_png(side, side, b""))


@settings(max_examples=150)
@given(st.data())
def test_damaged_images_raise_service_errors_only(data):
    form = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]))
    mangled = bytearray(encoded(gradient(16, 12), form))
    for _ in range(data.draw(st.integers(1, 6))):
        mangled[data.draw(st.integers(0, len(mangled) - 1))] = data.draw(st.integers(0, 255))
    with suppress(NotAnImage, ImageTooLarge, CorruptImage):
        assert decode_image(bytes(mangled), LIMIT).pixels.size > 0


def test_a_side_is_limited():
    """A decoder takes time for each row, however short it is."""
    data = encoded(Image.new("L", (65_536, 1)), "PNG")
    with pytest.raises(ImageTooLarge, match="65536x1; a side may have 65535 pixels"):
        decode(data)
    assert decode(encoded(Image.new("L", (65_535, 1)), "PNG")).shape == (1, 65_535, 3)


@pytest.mark.parametrize("size", [(641, 10), (10, 641)])
def test_an_image_that_would_be_thinner_than_a_pixel_in_the_square_is_refused(size):
    data = encoded(Image.new("L", size), "PNG")
    assert decode_image(data, LIMIT, target=InputSize.of(65)).pixels.shape == (*size[::-1], 3)
    with pytest.raises(ImageTooNarrow, match="the model's 64 pixels"):
        decode_image(data, LIMIT, target=InputSize.of(64))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "RGB"])
def test_an_image_of_several_strips_is_decoded_like_one(mode):
    image = gradient(700, 900).convert(mode)
    if mode in {"LA", "RGBA"}:
        image.putalpha(gradient(700, 900).getchannel("R"))
    data = encoded(image, "PNG", **({"transparency": 3} if mode == "P" else {}))
    pixels = decode(data)
    top = encoded(
        image.crop((0, 0, 700, 100)), "PNG", **({"transparency": 3} if mode == "P" else {})
    )
    np.testing.assert_array_equal(pixels[:100], decode(top))
    if mode in {"L", "RGB"}:
        np.testing.assert_array_equal(pixels, by_pillow(data))


def test_a_padded_jpeg_is_reduced_by_pillow_too():
    data = jpeg(200, 81)
    padded = data[:-2] + bytes(40) + data[-2:]
    photo = decode_image(padded, LIMIT, target=InputSize.of(50))
    assert (photo.width, photo.height) == (200, 81)
    unpadded = decode_image(data, LIMIT, target=InputSize.of(50))
    assert photo.pixels.shape == unpadded.pixels.shape == (21, 50, 3)
