import numpy as np
import pytest

from service.vision.image import Photo
from service.vision.preprocess import PREPROCESS, preprocess
from tests.service.pictures import letterboxed

IMAGE = np.zeros((32, 64, 3), np.uint8)
IMAGE[:] = 10, 20, 30
PHOTO = Photo.from_pixels(IMAGE)


@pytest.mark.parametrize(
    ("name", "colour", "grey", "top"),
    [
        ("yolo", [10 / 255, 20 / 255, 30 / 255], 114 / 255, 16),
        ("yolox", [30.0, 20.0, 10.0], 114.0, 0),
    ],
)
def test_each_family_has_its_channel_order_range_and_padding(name, colour, grey, top):
    prepared = preprocess(PHOTO, 64, PREPROCESS[name])
    assert prepared.tensor.shape == (1, 3, 64, 64)
    assert prepared.tensor.dtype == np.float32
    assert prepared.tensor.flags.c_contiguous
    np.testing.assert_allclose(prepared.tensor[0, :, top + 5, 5], colour, rtol=1e-6)
    below = prepared.tensor[0, :, top + 32 :]
    np.testing.assert_allclose(below, grey, rtol=1e-6)
    assert prepared.letterbox.top == top


def test_rows_and_columns_keep_their_places():
    image = np.zeros((64, 64, 3), np.uint8)
    image[3, 50] = 255
    tensor = preprocess(Photo.from_pixels(image), 64, PREPROCESS["yolo"]).tensor
    assert np.argwhere(tensor[0, 0] > 0.5).tolist() == [[3, 50]]


@pytest.mark.parametrize("name", PREPROCESS)
@pytest.mark.parametrize("shape", [(64, 64, 3), (30, 100, 3), (100, 30, 3), (200, 170, 3)])
def test_the_tensor_is_the_letterboxed_image_divided(name, shape):
    image = np.random.default_rng(6).integers(0, 256, shape, np.uint8)
    how = PREPROCESS[name]
    square, _ = letterboxed(image, 64, how.padding)
    channels = square[:, :, ::-1] if how.bgr else square
    expected = channels.transpose(2, 0, 1).astype(np.float32) / np.float32(how.divisor)
    np.testing.assert_array_equal(preprocess(Photo.from_pixels(image), 64, how).tensor[0], expected)
