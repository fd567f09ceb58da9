"""What the teacher sees in each photo of a pack, so that rare classes are drawn more often.

python -m zoo.train.census PACK --teacher yolox_nano.onnx
"""

import argparse
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.vision.letterbox import letterbox
from zoo.train.augment import FOUND
from zoo.train.photos import CENSUS, Pack
from zoo.train.teacher import Teacher

SIZE: Final = 416  # the teacher's own
BATCH: Final = 32


def census(pack: Pack, teacher: Path) -> NDArray[np.float16]:
    """The best score of each class in each photo, [P, 80]."""
    model = Teacher.load(teacher, SIZE)
    best = np.zeros((len(pack), 80), np.float16)
    for start in range(0, len(pack), BATCH):
        numbers = range(start, min(start + BATCH, len(pack)))
        photos = [pack.photo(number, 0) for number in numbers]
        lesson = model.teach([letterbox(photo, SIZE, "bottom-right")[0] for photo in photos])
        scores = lesson.objectness[..., None] * lesson.classes
        best[numbers.start : numbers.stop] = scores.amax(dim=1).numpy()
        if start % (BATCH * 50) == 0:
            print(f"{numbers.stop} of {len(pack)} photos", flush=True)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path, help="folder that zoo.train.pack wrote")
    parser.add_argument("--teacher", type=Path, required=True, help="yolox_nano.onnx")
    arguments = parser.parse_args()
    best = census(Pack.open(arguments.pack), arguments.teacher)
    np.save(arguments.pack / CENSUS, best)
    counts = (best > FOUND).sum(axis=0)
    for label in np.argsort(-counts):
        print(label, counts[label])


if __name__ == "__main__":
    main()
