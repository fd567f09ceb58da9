"""Pixels -> the tensor that a model was trained on."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from service.detections import Floats
from service.image import Pixels
from service.letterbox import Letterbox, Padding, letterbox

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


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """f32[1,3,size,size] for the engine, and the geometry that maps its boxes back."""

    tensor: Floats
    letterbox: Letterbox


def prepare(image: Pixels, size: int, how: Preprocess) -> Prepared:
    """u8[H,W,3] RGB -> what the model sees of it."""
    square, geometry = letterbox(image, size, how.padding)
    if how.bgr:
        square = square[:, :, ::-1]
    tensor = np.empty((1, 3, size, size), np.float32)
    np.divide(square.transpose(2, 0, 1), np.float32(how.divisor), out=tensor[0])
    return Prepared(tensor, geometry)
