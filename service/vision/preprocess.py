"""Photo -> input tensor, as the family of the model was trained."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.vision.detections import Floats
from service.vision.image import Photo
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

Planes = NDArray[np.uint8]  # [1,3,size,size], channels in the model's order


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """u8[1,3,size,size] for the engine, and the geometry that maps its boxes back."""

    planes: Planes
    divisor: float
    letterbox: Letterbox

    @property
    def tensor(self) -> Floats:
        """f32[1,3,size,size]: the planes in the value range of the model."""
        return normalize(self.planes, self.divisor)


def normalize(image: Planes | Floats, divisor: float) -> Floats:
    """Divide u8 by `divisor`, into the value range of the model; f32 is returned unchanged."""
    if image.dtype == np.float32:
        return np.asarray(image, np.float32)
    return np.divide(image, np.float32(divisor), dtype=np.float32)


def preprocess(photo: Photo, size: int, how: Preprocess) -> Prepared:
    """Letterbox a photo into a size x size square, channels first."""
    resized, box = resize_to_fit(photo, size, how.padding)
    if how.bgr:
        resized = resized[:, :, ::-1]
    planes = np.empty((1, 3, size, size), np.uint8)
    planes[0, :, : box.top] = PAD_GREY
    planes[0, :, box.rows.stop :] = PAD_GREY
    planes[0, :, box.rows, : box.left] = PAD_GREY
    planes[0, :, box.rows, box.columns.stop :] = PAD_GREY
    # Written straight into its place: a padded square in between would cost one more copy.
    planes[0, :, box.rows, box.columns] = resized.transpose(2, 0, 1)
    return Prepared(planes, how.divisor, box)
