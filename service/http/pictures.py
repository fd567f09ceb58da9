"""Answers drawn onto their image, called by a backend as `ImageRequest.render`."""

from collections.abc import Callable, Sequence
from functools import partial

from service.inference.backend import Render
from service.inference.results import Answer
from service.vision.agreement import match
from service.vision.detections import Ints
from service.vision.drawing import Panel, PictureType, draw, draw_side_by_side, encode
from service.vision.image import Pixels


def renderer(media_type: PictureType, class_name: Callable[[int], str]) -> Render:
    """Draws one answer onto the image, or the two of a comparison side by side.

    It can be pickled if `class_name` can.
    """
    return partial(_render, media_type, class_name)


def _render(
    media_type: PictureType,
    class_name: Callable[[int], str],
    pixels: Pixels,
    answers: Sequence[Answer],
) -> bytes:
    if len(answers) == 1:
        return encode(draw(pixels, answers[0].detections, class_name), media_type)
    return encode(draw_side_by_side(pixels, _panels(*answers), class_name), media_type)


def _panels(a: Answer, b: Answer) -> tuple[Panel, Panel]:
    pairs = match(a.detections, b.detections)
    return _panel(a, pairs.only_a, b.variant), _panel(b, pairs.only_b, a.variant)


def _panel(answer: Answer, alone: Ints, other: str) -> Panel:
    """`alone`: the rows that the other variant does not detect."""
    count = len(answer.detections)
    caption = f"{answer.variant}: {count} {'box' if count == 1 else 'boxes'}"
    if len(alone):
        caption += f", {len(alone)} not detected by {other}"
    return Panel(caption, answer.detections, frozenset(alone.tolist()))
