"""Boxes painted onto their picture."""

import colorsys
import io
from collections.abc import Callable
from typing import Final, Literal

from PIL import Image, ImageDraw, ImageFont

from service.detections import Detections
from service.image import Pixels

GOLDEN_ANGLE: Final = 0.381966  # of a turn: neighbouring classes get hues that are far apart
JPEG_QUALITY: Final = 90

PictureType = Literal["image/jpeg", "image/png"]


def draw(image: Pixels, found: Detections, class_name: Callable[[int], str]) -> Image.Image:
    """A copy of u8[H,W,3] RGB with every box, its class and its score; the best on top."""
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    width = max(2, round(max(picture.size) / 320))
    font = ImageFont.load_default(size=max(10, round(max(picture.size) / 45)))
    for row in reversed(range(len(found))):
        x1, y1, x2, y2 = (float(edge) for edge in found.xyxy[row])
        class_id = int(found.class_ids[row])
        colour, ink = _colours(class_id)
        canvas.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=width)
        label = f"{class_name(class_id)} {found.scores[row]:.2f}"
        left, top, right, bottom = canvas.textbbox((0, 0), label, font=font)
        height = bottom - top + 2 * width
        base = y1 - height if y1 >= height else y1
        canvas.rectangle((x1, base, x1 + right - left + 2 * width, base + height), fill=colour)
        canvas.text((x1 + width - left, base + width - top), label, fill=ink, font=font)
    return picture


def encode(picture: Image.Image, media_type: PictureType) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    if media_type == "image/png":
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _colours(class_id: int) -> tuple[tuple[int, int, int], str]:
    """A fill for the class and the ink that can be read on it."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * GOLDEN_ANGLE % 1.0, 0.85, 0.95)
    fill = (round(red * 255), round(green * 255), round(blue * 255))
    luminance = 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2]
    return fill, "black" if luminance > 140 else "white"
