import io

import numpy as np
import pytest
from PIL import Image

from service.detections import Detections
from service.drawing import draw, encode

BLANK = np.zeros((120, 200, 3), np.uint8)


def one_box(class_id: int = 0, xyxy: tuple[float, ...] = (50, 40, 150, 100)) -> Detections:
    return Detections(
        np.array([xyxy], np.float32), np.array([0.5], np.float32), np.array([class_id])
    )


def test_a_box_is_outlined_and_its_inside_is_untouched():
    image = BLANK.copy()
    pixels = np.asarray(draw(image, one_box(), str))
    assert not image.any()
    for row, column in [(99, 100), (70, 50), (70, 150)]:
        assert pixels[row, column].max() > 150
    assert not pixels[70, 100].any()


def test_a_label_is_written_above_or_where_there_is_room():
    above = np.asarray(draw(BLANK, one_box(), str))
    assert above[:40].any()
    at_the_top = np.asarray(draw(BLANK, one_box(xyxy=(50, 0, 150, 100)), str))
    assert at_the_top[2:10, 55:70].any()


def test_classes_differ_in_colour():
    colours = {tuple(np.asarray(draw(BLANK, one_box(i), str))[99, 100]) for i in range(10)}
    assert len(colours) == 10


def test_no_boxes_leave_the_picture_alone():
    nothing = one_box().take(np.array([], np.int64))
    assert not np.asarray(draw(BLANK, nothing, str)).any()


def test_an_inverted_box_does_not_break_the_picture():
    draw(BLANK, one_box(xyxy=(150, 100, 50, 40)), str)


@pytest.mark.parametrize(("media_type", "form"), [("image/jpeg", "JPEG"), ("image/png", "PNG")])
def test_the_picture_is_encoded_as_asked(media_type, form):
    picture = Image.open(io.BytesIO(encode(draw(BLANK, one_box(), str), media_type)))
    assert picture.format == form
    assert picture.size == (200, 120)
