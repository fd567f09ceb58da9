"""The output of a detector, as one struct of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Output = NDArray[np.float32 | np.uint8]
Outputs = Sequence[Output]  # of an engine


def as_output(values: NDArray[np.generic]) -> Output:
    """Floats as float32; bytes, which are quantized features, as they are."""
    return np.asarray(values, np.uint8 if values.dtype == np.uint8 else np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes of one image, best first.

    xyxy is f32[N,4]: left, top, right, bottom in pixels, of the model's square or of the source
    image, as the function that returns it says. scores is f32[N] in 0..1, class_ids is i64[N].
    """

    xyxy: Floats
    scores: Floats
    class_ids: Ints

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.xyxy.shape != (n, 4) or self.class_ids.shape != (n,):
            raise ValueError(
                f"lengths disagree: xyxy {self.xyxy.shape}, scores {self.scores.shape}, "
                f"class_ids {self.class_ids.shape}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: Ints | NDArray[np.bool_]) -> "Detections":
        """The rows at `index`, which holds indices or is a mask."""
        return Detections(self.xyxy[index], self.scores[index], self.class_ids[index])
