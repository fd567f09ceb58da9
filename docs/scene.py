"""Draw the street that the README shows: no photograph, so nobody's rights.

.venv/bin/python docs/scene.py scene.png
"""

import math
import sys

from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = (960, 640)
SCALE = 2  # drawn larger, then reduced: smooth edges


def main() -> None:
    width, height = (side * SCALE for side in SIZE)
    scene = Image.new("RGB", (width, height))
    canvas = ImageDraw.Draw(scene)
    sky_and_ground(canvas, width, height)
    houses(canvas, width)
    stop_sign(canvas, 330, 500, 130)
    traffic_light(canvas, 1640, 330)
    clock(canvas, 1180, 260, 110)
    bus(canvas, 620, 560)
    scene.filter(ImageFilter.GaussianBlur(1.5)).resize(SIZE, Image.Resampling.LANCZOS).save(
        sys.argv[1]
    )


def sky_and_ground(canvas: ImageDraw.ImageDraw, width: int, height: int) -> None:
    horizon = height * 2 // 3
    for y in range(horizon):
        share = y / horizon
        canvas.line((0, y, width, y), (int(110 + 90 * share), int(165 + 60 * share), 235))
    canvas.rectangle((0, horizon, width, height), (88, 90, 94))
    canvas.rectangle((0, horizon, width, horizon + 36), (150, 148, 142))
    for x in range(0, width, 260):
        canvas.rectangle((x, height - 130, x + 140, height - 114), (225, 225, 215))


def houses(canvas: ImageDraw.ImageDraw, width: int) -> None:
    walls = ((178, 120, 96), (160, 150, 135), (140, 128, 150), (188, 160, 120))
    for index, left in enumerate(range(0, width, 480)):
        top = 300 + 90 * (index % 3)
        canvas.rectangle((left, top, left + 470, 860), walls[index % 4])
        for x in range(left + 50, left + 420, 110):
            for y in range(top + 50, 760, 130):
                canvas.rectangle((x, y, x + 60, y + 80), (70, 86, 105), (230, 225, 215), 6)


def stop_sign(canvas: ImageDraw.ImageDraw, x: int, y: int, radius: int) -> None:
    canvas.rectangle((x - 9, y, x + 9, 1080), (120, 122, 125))
    for size, colour in ((radius, (245, 245, 245)), (radius - 10, (190, 22, 30))):
        corners = [math.radians(22.5 + 45 * k) for k in range(8)]
        canvas.polygon([(x + size * math.cos(a), y + size * math.sin(a)) for a in corners], colour)
    font = ImageFont.load_default(size=radius * 0.66)
    canvas.text((x, y), "STOP", fill="white", font=font, anchor="mm", stroke_width=3)


def traffic_light(canvas: ImageDraw.ImageDraw, x: int, y: int) -> None:
    canvas.rectangle((x - 10, y, x + 10, 1000), (60, 62, 64))
    canvas.rounded_rectangle((x - 62, y - 160, x + 62, y + 180), 26, (28, 30, 30))
    for offset, colour in ((-95, (235, 40, 30)), (10, (70, 60, 20)), (115, (20, 70, 40))):
        canvas.ellipse((x - 42, y + offset - 42, x + 42, y + offset + 42), colour)


def clock(canvas: ImageDraw.ImageDraw, x: int, y: int, radius: int) -> None:
    canvas.rectangle((x - 8, y, x + 8, 900), (45, 48, 50))
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), (40, 42, 45))
    inner = radius - 12
    canvas.ellipse((x - inner, y - inner, x + inner, y + inner), (250, 248, 240))
    font = ImageFont.load_default(size=radius * 0.24)
    for hour in range(1, 13):
        angle = math.radians(hour * 30 - 90)
        at = (x + inner * 0.8 * math.cos(angle), y + inner * 0.8 * math.sin(angle))
        canvas.text(at, str(hour), fill="black", font=font, anchor="mm")
    for angle, length, width in ((-60, 0.5, 9), (60, 0.7, 6)):
        turn = math.radians(angle)
        tip = (x + inner * length * math.cos(turn), y + inner * length * math.sin(turn))
        canvas.line((x, y, *tip), "black", width)


def bus(canvas: ImageDraw.ImageDraw, x: int, y: int) -> None:
    canvas.rounded_rectangle((x, y, x + 760, y + 400), 30, (205, 40, 36))
    canvas.rectangle((x, y + 210, x + 760, y + 228), (245, 235, 220))
    for left in range(x + 30, x + 640, 105):
        canvas.rounded_rectangle((left, y + 50, left + 92, y + 180), 8, (60, 80, 98))
    canvas.rounded_rectangle((x + 665, y + 50, x + 745, y + 360), 8, (60, 80, 98))
    for centre in (x + 150, x + 580):
        canvas.ellipse((centre - 66, y + 330, centre + 66, y + 462), (25, 25, 27))
        canvas.ellipse((centre - 30, y + 366, centre + 30, y + 426), (170, 172, 175))
    canvas.ellipse((x + 735, y + 260, x + 765, y + 300), (255, 240, 190))


if __name__ == "__main__":
    main()
