"""The teacher's best score of each class in each photo: training draws rare classes more often.

python -m zoo.train.class_scores PACK --teacher yolox_nano.onnx
"""

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from service.vision.image import Photo
from service.vision.input_size import InputSize
from service.vision.preprocess import PREPROCESS, preprocess
from zoo.train.augment import FOUND
from zoo.train.network import default_device
from zoo.train.pack import CLASS_SCORES, Pack, Pixels
from zoo.train.teacher import load_teacher

SIZE: Final = 416  # pixels: the teacher's training size
BATCH: Final = 32


def class_scores(pack: Pack, teacher: Path) -> NDArray[np.float16]:
    """The best score of each class in each photo, f16[P,80]."""
    device = default_device()
    model = load_teacher(teacher, SIZE, device)
    best = np.zeros((len(pack), 80), np.float16)
    for start in range(0, len(pack), BATCH):
        numbers = range(start, min(start + BATCH, len(pack)))
        photos = [pack.photo(number, 0) for number in numbers]
        images = torch.from_numpy(np.stack([_letterboxed(photo) for photo in photos]))
        predicted = model.predict(images.to(device))
        scores = predicted.objectness[..., None] * predicted.classes
        best[numbers.start : numbers.stop] = scores.amax(dim=1).cpu().numpy()
        if start % (BATCH * 50) == 0:
            print(f"{numbers.stop} of {len(pack)} photos", flush=True)
    return best


def _letterboxed(photo: Pixels) -> Pixels:
    return preprocess(
        Photo.from_pixels(photo), InputSize.of(SIZE), PREPROCESS["yolox"].padding
    ).canvas[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path, help="folder that zoo.train.pack wrote")
    parser.add_argument("--teacher", type=Path, required=True, help="yolox_nano.onnx")
    arguments = parser.parse_args()
    best = class_scores(Pack.open(arguments.pack), arguments.teacher)
    np.save(arguments.pack / CLASS_SCORES, best)
    counts = (best > FOUND).sum(axis=0)
    for label in np.argsort(-counts):
        print(label, counts[label])


if __name__ == "__main__":
    main()
