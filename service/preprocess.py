"""Pixels -> the tensor that a model was trained on."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from service.detections import Floats
from service.image import Photo
from service.letterbox import PAD_GREY, Letterbox, Padding, fitted

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


def prepare(photo: Photo, size: int, how: Preprocess) -> Prepared:
    """RGB pixels -> what the model sees of them."""
    copy, box = fitted(photo, size, how.padding)
    if how.bgr:
        copy = copy[:, :, ::-1]
    divisor = np.float32(how.divisor)
    tensor = np.empty((1, 3, size, size), np.float32)
    grey = PAD_GREY / divisor
    tensor[0, :, : box.top] = grey
    tensor[0, :, box.rows.stop :] = grey
    tensor[0, :, box.rows, : box.left] = grey
    tensor[0, :, box.rows, box.columns.stop :] = grey
    # Sorted by channel as bytes, a quarter of the memory; then one pass, straight into its place.
    planes = np.ascontiguousarray(copy.transpose(2, 0, 1))
    np.divide(planes, divisor, out=tensor[0, :, box.rows, box.columns])
    return Prepared(tensor, box)
