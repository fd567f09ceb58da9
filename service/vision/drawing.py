"""Draw boxes on an image."""

import colorsys
import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.vision.detections import Detections
from service.vision.image import Pixels

GOLDEN_ANGLE: Final = 0.381966  # turns of hue: keeps the colours of adjacent classes far apart
JPEG_QUALITY: Final = 90
MAX_PANEL_SIDE: Final = 1600  # pixels: two photos at full size fit on no screen
BACKGROUND: Final = (246, 247, 249)
CAPTION_COLOUR: Final = (28, 34, 42)

PictureType = Literal["image/jpeg", "image/png"]


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One of the images that are shown side by side; the boxes `unmatched` are dashed."""

    caption: str
    detections: Detections
    unmatched: Collection[int]  # rows of `detections`


def draw(
    image: Pixels,
    detections: Detections,
    class_name: Callable[[int], str],
    unmatched: Collection[int] = (),
) -> Image.Image:
    """A copy of u8[H,W,3] RGB with every box, its class and its score; the best box on top.

    The rows `unmatched` of `detections` are dashed.
    """
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    width = max(2, round(max(picture.size) / 320))
    font = ImageFont.load_default(size=max(10, round(max(picture.size) / 45)))
    for row in reversed(range(len(detections))):
        x1, y1, x2, y2 = (float(edge) for edge in detections.xyxy[row])
        class_id = int(detections.class_ids[row])
        colour, text_colour = _colours(class_id)
        x2, y2 = max(x1, x2), max(y1, y2)
        if row in unmatched:
            _dashed(canvas, (x1, y1, x2, y2), colour, width)
        else:
            canvas.rectangle((x1, y1, x2, y2), outline=colour, width=width)
        label = f"{class_name(class_id)} {detections.scores[row]:.2f}"
        left, top, right, bottom = canvas.textbbox((0, 0), label, font=font)
        height = bottom - top + 2 * width
        base = y1 - height if y1 >= height else y1
        canvas.rectangle((x1, base, x1 + right - left + 2 * width, base + height), fill=colour)
        canvas.text((x1 + width - left, base + width - top), label, fill=text_colour, font=font)
    return picture


def draw_side_by_side(
    image: Pixels, panels: Sequence[Panel], class_name: Callable[[int], str]
) -> Image.Image:
    """The image once for each panel, from left to right, each below its caption."""
    source = Image.fromarray(image)
    scale = min(1.0, MAX_PANEL_SIDE / max(source.size))
    size = (max(1, round(source.width * scale)), max(1, round(source.height * scale)))
    shrunk = np.asarray(source.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    letter = max(12, round(max(size) / 45))
    font, margin = ImageFont.load_default(size=letter), letter // 2
    strip = letter + 2 * margin
    # The caption may be wider than a narrow image.
    width = max(size[0], *(round(font.getlength(panel.caption)) for panel in panels))
    step = width + margin
    sheet = Image.new("RGB", (len(panels) * step + margin, size[1] + strip + margin), BACKGROUND)
    canvas = ImageDraw.Draw(sheet)
    for index, panel in enumerate(panels):
        left = margin + index * step
        detections = panel.detections
        scaled = Detections(
            detections.xyxy * np.float32(scale), detections.scores, detections.class_ids
        )
        canvas.text((left, strip / 2), panel.caption, fill=CAPTION_COLOUR, font=font, anchor="lm")
        sheet.paste(draw(shrunk, scaled, class_name, panel.unmatched), (left, strip))
    return sheet


def encode(picture: Image.Image, media_type: PictureType) -> bytes:
    """The picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, media_type.removeprefix("image/"), quality=JPEG_QUALITY)
    return buffer.getvalue()


def _dashed(
    canvas: ImageDraw.ImageDraw,
    xyxy: tuple[float, float, float, float],
    colour: tuple[int, int, int],
    width: int,
) -> None:
    """The outline that `rectangle` draws, with gaps along half of each edge."""
    x1, y1, x2, y2 = xyxy
    inset, dash = width - 1, 4 * width
    for x in np.arange(x1, x2, 2 * dash):
        end = min(x + dash, x2)
        canvas.rectangle((x, y1, end, min(y1 + inset, y2)), fill=colour)
        canvas.rectangle((x, max(y2 - inset, y1), end, y2), fill=colour)
    for y in np.arange(y1, y2, 2 * dash):
        end = min(y + dash, y2)
        canvas.rectangle((x1, y, min(x1 + inset, x2), end), fill=colour)
        canvas.rectangle((max(x2 - inset, x1), y, x2, end), fill=colour)


def _colours(class_id: int) -> tuple[tuple[int, int, int], str]:
    """A fill for the class, and the colour of text on it."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * GOLDEN_ANGLE % 1.0, 0.85, 0.95)
    fill = (round(red * 255), round(green * 255), round(blue * 255))
    luminance = 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2]
    return fill, "black" if luminance > 140 else "white"
