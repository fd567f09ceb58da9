import numpy as np
import pytest

from service.preprocess import PREPROCESS, prepare

IMAGE = np.zeros((32, 64, 3), np.uint8)
IMAGE[:] = 10, 20, 30


@pytest.mark.parametrize(
    ("name", "colour", "grey", "top"),
    [
        ("yolo", [10 / 255, 20 / 255, 30 / 255], 114 / 255, 16),
        ("yolox", [30.0, 20.0, 10.0], 114.0, 0),
    ],
)
def test_each_family_gets_its_channels_range_and_padding(name, colour, grey, top):
    prepared = prepare(IMAGE, 64, PREPROCESS[name])
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
    tensor = prepare(image, 64, PREPROCESS["yolo"]).tensor
    assert np.argwhere(tensor[0, 0] > 0.5).tolist() == [[3, 50]]
