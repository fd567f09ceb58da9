"""The answer of a detector: one struct of arrays that knows nothing of who made it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes of one image, best first.

    xyxy is f32[N,4] (left, top, right, bottom in pixels, of the frame its maker names), scores is
    f32[N] in 0..1, class_ids is i64[N].
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
        """The chosen rows (indices or a mask), in the order given."""
        return Detections(self.xyxy[index], self.scores[index], self.class_ids[index])
