"""Photo -> the letterboxed image that an engine reads, as the family of the model was trained."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.vision.detections import Floats
from service.vision.image import Photo, Room
from service.vision.input_size import InputSize
from service.vision.letterbox import PAD_GREY, Letterbox, Padding, resize_to_fit

PreprocessName = Literal["yolo", "yolox"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Channel order, value range and padding of one family's training."""

    bgr: bool
    divisor: float  # 255 for inputs in 0..1, 1 for inputs in 0..255
    padding: Padding


PREPROCESS: Final[dict[PreprocessName, Preprocess]] = {
    "yolo": Preprocess(bgr=False, divisor=255.0, padding="centre"),  # YOLOv5 and its successors
    "yolox": Preprocess(bgr=True, divisor=1.0, padding="bottom-right"),
}

Canvas = NDArray[np.uint8]  # [1,height,width,3]: the letterboxed image, RGB


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """u8[1,height,width,3] for the engine, and the geometry that maps its boxes back."""

    canvas: Canvas
    letterbox: Letterbox


def tensor_of(canvas: Canvas, how: Preprocess) -> Floats:
    """f32[1,3,height,width]: channels first, in the order and the value range of the model."""
    ordered = canvas[..., ::-1] if how.bgr else canvas
    planes = np.ascontiguousarray(ordered.transpose(0, 3, 1, 2))
    return np.divide(planes, np.float32(how.divisor), dtype=np.float32)


def room_in_canvas(size: InputSize, padding: Padding) -> Room:
    """Where to decode photos that fill the rows of a canvas of this size without a resize."""

    def room(width: int, height: int, columns: int, rows: int) -> Photo | None:
        box = Letterbox.fit(width, height, size, padding)
        if (columns, rows) != (box.width, box.height) or columns != size.width:
            return None
        canvas = _padded(size, box)
        return Photo(canvas[0, box.rows], width, height, canvas)

    return room


def preprocess(photo: Photo, size: InputSize, padding: Padding) -> Prepared:
    """Letterbox a photo into an input of this size; nothing is left to do if it has a canvas."""
    if photo.canvas is not None:
        return Prepared(photo.canvas, Letterbox.fit(photo.width, photo.height, size, padding))
    resized, box = resize_to_fit(photo, size, padding)
    if (box.width, box.height) == (size.width, size.height):
        return Prepared(np.ascontiguousarray(resized)[None], box)
    canvas = _padded(size, box)
    canvas[0, box.rows, box.columns] = resized
    return Prepared(canvas, box)


def _padded(size: InputSize, box: Letterbox) -> Canvas:
    """A canvas that is grey around the box, where nothing has been written."""
    canvas = np.empty((1, size.height, size.width, 3), np.uint8)
    canvas[0, : box.top] = PAD_GREY
    canvas[0, box.rows.stop :] = PAD_GREY
    canvas[0, box.rows, : box.left] = PAD_GREY
    canvas[0, box.rows, box.columns.stop :] = PAD_GREY
    return canvas
