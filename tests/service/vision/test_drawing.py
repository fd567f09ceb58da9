import numpy as np
import pytest

from service.vision.detections import Detections
from service.vision.drawing import MAX_PANEL_SIDE, Panel, draw, draw_side_by_side

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


def test_a_label_is_above_its_box_or_inside_at_the_top_edge():
    above = np.asarray(draw(BLANK, one_box(), str))
    assert above[:40].any()
    at_the_top = np.asarray(draw(BLANK, one_box(xyxy=(50, 0, 150, 100)), str))
    assert at_the_top[2:10, 55:70].any()


def test_classes_differ_in_colour():
    colours = {tuple(np.asarray(draw(BLANK, one_box(i), str))[99, 100]) for i in range(10)}
    assert len(colours) == 10


def test_without_boxes_the_image_is_unchanged():
    nothing = one_box().take(np.array([], np.int64))
    assert not np.asarray(draw(BLANK, nothing, str)).any()


def lit(pixels: np.ndarray) -> np.ndarray:
    return pixels.max(axis=2) > 150


def test_an_unmatched_box_is_dashed():
    box = one_box(xyxy=(50, 40, 180, 110))
    whole = lit(np.asarray(draw(BLANK, box, str)))
    dashed = lit(np.asarray(draw(BLANK, box, str, [0])))
    for edge in (np.s_[110, 50:181], np.s_[40:111, 50], np.s_[40:111, 180]):
        assert whole[edge].all()
        assert 0.3 < dashed[edge].mean() < 0.8
    assert not dashed[60:100, 70:160].any()


@pytest.mark.parametrize("unmatched", [(), (0,)])
@pytest.mark.parametrize("xyxy", [(50, 40, 50, 40), (150, 100, 50, 40)])
def test_an_empty_or_inverted_box_can_be_drawn(xyxy, unmatched):
    draw(BLANK, one_box(xyxy=xyxy), str, unmatched)


def test_panels_are_side_by_side_below_their_captions():
    panels = [Panel("one", one_box(), ()), Panel("two", one_box().take(np.array([], int)), ())]
    sheet = np.asarray(draw_side_by_side(BLANK, panels, str))
    height, width, _ = sheet.shape
    dark = ~lit(sheet)
    columns = np.flatnonzero(dark[-20])
    assert len(columns) == 2 * 200
    gap = np.flatnonzero(np.diff(columns) > 1)
    assert gap.tolist() == [199]
    strip = dark[: height - 120]
    assert strip[:, : width // 2].any()
    assert strip[:, width // 2 :].any()
    left, right = columns[0], columns[200]
    top = height - 120 - (height - 1 - np.flatnonzero(dark[:, left + 1])[-1])
    assert lit(sheet)[top + 99, left + 60 : left + 140].all()  # the box's lower edge
    assert not lit(sheet)[top : top + 120, right : right + 200].any()


def test_a_large_image_is_shrunk_with_its_boxes():
    large = np.zeros((2400, 3200, 3), np.uint8)
    sheet = draw_side_by_side(large, [Panel("a", one_box(xyxy=(400, 400, 2800, 2000)), ())], str)
    assert MAX_PANEL_SIDE <= sheet.width < 1.1 * MAX_PANEL_SIDE
    edge = lit(np.asarray(sheet))[sheet.height // 2]
    inside = np.flatnonzero(edge & (np.arange(sheet.width) > 100))[0]
    assert 180 < inside < 240  # 400 px, halved, and the margin


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1)])
def test_an_image_of_any_shape_is_shown_with_its_whole_caption(size):
    sheet = draw_side_by_side(
        np.zeros((*size, 3), np.uint8), [Panel("long caption", one_box(), [0])], str
    )
    assert sheet.width > 60
