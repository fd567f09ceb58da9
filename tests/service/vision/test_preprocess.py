import numpy as np
import pytest
from PIL import Image

from service.vision.image import EncodedImage, Photo, decode_image
from service.vision.input_size import InputSize
from service.vision.preprocess import PREPROCESS, preprocess, room_in_canvas, tensor_of
from tests.service.pictures import encoded, gradient, jpeg, letterboxed, png

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
    how = PREPROCESS[name]
    prepared = preprocess(PHOTO, InputSize.of(64), how.padding)
    assert prepared.canvas.shape == (1, 64, 64, 3)
    assert prepared.canvas.flags.c_contiguous
    tensor = tensor_of(prepared.canvas, how)
    assert tensor.shape == (1, 3, 64, 64)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor[0, :, top + 5, 5], colour, rtol=1e-6)
    below = tensor[0, :, top + 32 :]
    np.testing.assert_allclose(below, grey, rtol=1e-6)
    assert prepared.letterbox.top == top


def test_rows_and_columns_keep_their_places():
    image = np.zeros((64, 64, 3), np.uint8)
    image[3, 50] = 255
    canvas = preprocess(Photo.from_pixels(image), InputSize.of(64), "centre").canvas
    assert np.argwhere(canvas[0, :, :, 0] > 127).tolist() == [[3, 50]]


@pytest.mark.parametrize("name", PREPROCESS)
@pytest.mark.parametrize("shape", [(64, 64, 3), (30, 100, 3), (100, 30, 3), (200, 170, 3)])
def test_the_tensor_is_the_letterboxed_image_divided(name, shape):
    image = np.random.default_rng(6).integers(0, 256, shape, np.uint8)
    how = PREPROCESS[name]
    square, _ = letterboxed(image, 64, how.padding)
    channels = square[:, :, ::-1] if how.bgr else square
    expected = channels.transpose(2, 0, 1).astype(np.float32) / np.float32(how.divisor)
    prepared = preprocess(Photo.from_pixels(image), InputSize.of(64), how.padding)
    np.testing.assert_array_equal(tensor_of(prepared.canvas, how)[0], expected)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    return encoded(gradient(64, 40), "JPEG", exif=exif)


@pytest.mark.parametrize("padding", ["centre", "bottom-right"])
@pytest.mark.parametrize(
    ("data", "in_canvas"),
    [
        (jpeg(64, 40), True),
        (jpeg(64, 64), True),
        (jpeg(128, 79), True),
        (jpeg(256, 4), True),
        (encoded(gradient(64, 40).convert("L"), "JPEG"), True),
        (jpeg(40, 64), False),
        (jpeg(90, 60), False),
        (jpeg(64, 40)[:-2] + bytes(40), False),
        (turned(), False),
        (png(64, 40), False),
    ],
    ids=[
        *("same", "square", "reduced", "thin", "grey"),
        *("portrait", "resized", "padded", "turned", "png"),
    ],
)
def test_a_jpeg_that_fills_the_rows_of_a_canvas_is_decoded_there(data, in_canvas, padding):
    size = InputSize.of(64)
    photo = EncodedImage(data, 10**6, size, room_in_canvas(size, padding)).decode()
    assert (photo.canvas is not None) is in_canvas
    prepared = preprocess(photo, size, padding)
    expected = preprocess(decode_image(data, 10**6, size), size, padding)
    np.testing.assert_array_equal(prepared.canvas, expected.canvas)
    assert prepared.letterbox == expected.letterbox


@pytest.mark.parametrize("padding", ["centre", "bottom-right"])
@pytest.mark.parametrize(
    ("data", "in_canvas"),
    [(jpeg(96, 60), True), (jpeg(192, 108), True), (jpeg(60, 96), False), (jpeg(128, 50), False)],
    ids=["same", "reduced", "portrait", "resized"],
)
def test_a_canvas_may_be_wider_than_high(data, in_canvas, padding):
    size = InputSize(96, 64)
    photo = EncodedImage(data, 10**6, size, room_in_canvas(size, padding)).decode()
    assert (photo.canvas is not None) is in_canvas
    prepared = preprocess(photo, size, padding)
    assert prepared.canvas.shape == (1, 64, 96, 3)
    expected = preprocess(decode_image(data, 10**6, size), size, padding)
    np.testing.assert_array_equal(prepared.canvas, expected.canvas)


def test_a_turned_jpeg_keeps_the_pixels_of_its_letterboxed_copy():
    upright = gradient(200, 800)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    size = InputSize(64, 256)
    photo = decode_image(data, 10**6, size)
    assert (photo.width, photo.height) == (200, 800)
    box = preprocess(photo, size, "centre").letterbox
    assert (box.width, box.height) == (64, 256)
    assert photo.pixels.shape[0] >= box.height
    assert photo.pixels.shape[1] >= box.width
