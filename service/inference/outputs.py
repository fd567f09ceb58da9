"""Whether what an engine returns are numbers."""

from math import isfinite
from typing import Any

import numpy as np

from service.inference.detector import Detector
from service.vision.image import Photo


def is_finite(outputs: Any) -> bool:
    """Whether one array, or each of several, has finite numbers alone."""
    arrays = outputs if isinstance(outputs, tuple) else (outputs,)
    floats = (each for each in arrays if each.dtype.kind == "f")
    # A sum that is finite has no other terms, and takes less time; a sum that is not may overflow.
    return all(
        isfinite(np.einsum("i->", each.ravel())) or np.isfinite(each).all() for each in floats
    )


def infers_blank(detector: Detector) -> bool:
    """Whether a blank image has finite outputs."""
    blank = detector.preprocess(Photo.from_pixels(np.zeros((64, 64, 3), np.uint8)))
    try:
        return is_finite(detector.infer(blank))
    except BaseException:
        return False
