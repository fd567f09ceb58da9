"""Answers drawn onto their image."""

from collections.abc import Callable, Sequence

from service.inference.results import Answer
from service.vision.agreement import match
from service.vision.detections import Ints
from service.vision.drawing import Panel, PictureType, draw, draw_side_by_side, encode
from service.vision.image import Pixels


def render(
    media_type: PictureType,
    class_name: Callable[[int], str],
    pixels: Pixels,
    answers: Sequence[Answer],
) -> bytes:
    """Draw one answer onto the image, or the two of a comparison side by side.

    With the first two arguments bound it is an `ImageRequest.render`.
    """
    if len(answers) == 1:
        picture = draw(pixels, answers[0].detections, class_name)
    else:
        a, b = answers
        pairs = match(a.detections, b.detections)
        panels = (_panel(a, pairs.only_a, b.variant), _panel(b, pairs.only_b, a.variant))
        picture = draw_side_by_side(pixels, panels, class_name)
    return encode(picture, media_type)


def _panel(answer: Answer, alone: Ints, other: str) -> Panel:
    """`alone`: the rows that the other variant does not detect."""
    count = len(answer.detections)
    caption = f"{answer.variant}: {count} {'box' if count == 1 else 'boxes'}"
    if len(alone):
        caption += f", {len(alone)} not detected by {other}"
    return Panel(caption, answer.detections, frozenset(alone.tolist()))
