import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.vision.input_size import InputSize
from service.vision.letterbox import PAD_GREY, Letterbox
from tests.service.pictures import letterboxed

PADDINGS = ["centre", "bottom-right"]
sides = st.integers(1, 5000)
SIZES = [InputSize.of(written) for written in (64, 416, 640, "640x384", "384x640", "96x32")]
shares = st.floats(0, 1)


@pytest.mark.parametrize("padding", PADDINGS)
@given(sides, sides, st.sampled_from(SIZES), shares, shares, shares, shares)
def test_a_box_is_mapped_into_the_input_and_back(padding, width, height, size, a, b, c, d):
    box = Letterbox.fit(width, height, size, padding)
    x1, x2 = sorted([a * width, b * width])
    y1, y2 = sorted([c * height, d * height])
    x_scale, y_scale = box.width / width, box.height / height
    inside = [
        x1 * x_scale + box.left, y1 * y_scale + box.top,
        x2 * x_scale + box.left, y2 * y_scale + box.top,
    ]  # fmt: skip
    back = box.to_source(np.array([inside], np.float32))
    tolerance = 1e-3 + 1e-5 * max(width, height) * size.longest / min(box.width, box.height)
    np.testing.assert_allclose(back, [[x1, y1, x2, y2]], atol=tolerance)


@pytest.mark.parametrize("padding", PADDINGS)
@given(sides, sides, st.sampled_from(SIZES))
def test_the_copy_fits_and_fills_one_side(padding, width, height, size):
    box = Letterbox.fit(width, height, size, padding)
    assert box.width == size.width or box.height == size.height
    assert 1 <= box.width <= size.width - box.left
    assert 1 <= box.height <= size.height - box.top


@pytest.mark.parametrize(
    ("source", "size", "placed"),
    [
        ((1920, 1080), "640x384", (0, 12, 640, 360)),
        ((1080, 1920), "640x384", (212, 0, 216, 384)),
        ((1920, 1080), "384x640", (0, 212, 384, 216)),
        ((640, 384), "640x384", (0, 0, 640, 384)),
    ],
)
def test_wide_and_tall_images_are_placed_in_the_middle_of_wide_and_tall_inputs(
    source, size, placed
):
    box = Letterbox.fit(*source, InputSize.of(size), "centre")
    assert (box.left, box.top, box.width, box.height) == placed


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_boxes_are_clipped_to_the_source(x, y):
    box = Letterbox.fit(300, 200, InputSize.of(640), "centre")
    (x1, y1, _, _) = box.to_source(np.array([[x, y, x, y]], np.float32))[0]
    assert 0 <= x1 <= 300
    assert 0 <= y1 <= 200


def test_an_array_without_boxes_is_mapped_to_another():
    box = Letterbox.fit(300, 200, InputSize.of(640), "centre")
    assert box.to_source(np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(("padding", "top"), [("centre", 16), ("bottom-right", 0)])
def test_the_padding_is_grey(padding, top):
    image = np.full((100, 200, 3), 7, np.uint8)
    square, box = letterboxed(image, 64, padding)
    assert square.shape == (64, 64, 3)
    assert (box.left, box.top, box.width, box.height) == (0, top, 64, 32)
    inside = np.zeros((64, 64), bool)
    inside[top : top + 32] = True
    assert (square[inside] == 7).all()
    assert (square[~inside] == PAD_GREY).all()


def test_an_image_of_the_right_size_is_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    square, _ = letterboxed(image, 64, "centre")
    np.testing.assert_array_equal(square, image)


@pytest.mark.parametrize("shape", [(375, 500, 3), (900, 1200, 3), (1080, 1920, 3)])
def test_resizing_agrees_with_pillow_on_smooth_images(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = np.stack([np.sin(x / 90) * 100, np.cos(y / 70) * 100, np.sin((x + y) / 80) * 100], -1)
    image = (waves + 128).astype(np.uint8)
    square, box = letterboxed(image, 640, "centre")
    inside = square[box.top : box.top + box.height, box.left : box.left + box.width]
    wanted = Image.fromarray(image).resize((box.width, box.height), Image.Resampling.BILINEAR)
    assert np.abs(inside.astype(int) - np.asarray(wanted)).max() <= 2


@pytest.mark.parametrize("shape", [(1, 3000, 3), (3000, 1, 3), (1, 1, 3)])
def test_an_image_one_pixel_wide_or_high_keeps_a_pixel(shape):
    square, box = letterboxed(np.zeros(shape, np.uint8), 64, "centre")
    assert square.shape == (64, 64, 3)
    assert min(box.width, box.height) >= 1
    assert (square == 0).any()
