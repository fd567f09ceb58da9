"""A pack <-> JPEGs in zip files of limited size, to train on a machine that little can be sent to.

python -m zoo.train.pieces split PACK PIECES
python -m zoo.train.pieces join PIECES PACK
"""

import argparse
import io
import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.train.pack import CLASS_SCORES, Pack, PackWriter

MIB: Final = 2**20
QUALITY: Final = 85  # of the JPEGs
INDEX: Final = "index.json"


@dataclass(frozen=True, slots=True)
class Photo:
    jpeg: bytes
    labels: list[list[float]] | None
    scores: list[float] | None  # of the classes

    @property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.jpeg)).convert("RGB")


def split(pack: Pack, pieces: Path, max_bytes: int) -> int:
    """Write the photos of a pack as zip files of at most `max_bytes`; returns how many."""
    pieces.mkdir(parents=True, exist_ok=True)
    written = 0
    for written, photos in enumerate(_groups(_photos(pack), max_bytes), start=1):
        with zipfile.ZipFile(pieces / f"{written:04}.zip", "w") as piece:
            for number, photo in enumerate(photos):
                piece.writestr(f"{number:06}.jpg", photo.jpeg)
            index = [{"labels": photo.labels, "scores": photo.scores} for photo in photos]
            piece.writestr(INDEX, json.dumps(index))
    return written


def join(pieces: Path, target: Path) -> Pack:
    """Write the pack of all pieces of a folder."""
    scores: list[list[float] | None] = []
    with PackWriter(target) as writer, ThreadPoolExecutor() as pool:
        for path in sorted(pieces.glob("*.zip")):
            photos = list(_read(path))
            decoded = pool.map(lambda photo: photo.image, photos)
            for photo, image in zip(photos, decoded, strict=True):
                writer.add(image, photo.labels)
                scores.append(photo.scores)
    if scores and None not in scores:
        np.save(target / CLASS_SCORES, np.asarray(scores, np.float16))
    return Pack.open(target)


def _photos(pack: Pack) -> Iterator[Photo]:
    for number in range(len(pack)):
        jpeg = io.BytesIO()
        Image.fromarray(pack.photo(number, 0)).save(jpeg, "JPEG", quality=QUALITY)
        labels = pack.labels.get(number)
        yield Photo(
            jpeg.getvalue(),
            None if labels is None else labels.tolist(),
            None if pack.class_scores is None else _short(pack.class_scores[number]),
        )


def _short(scores: NDArray[np.float16]) -> list[float]:
    return [round(float(score), 3) for score in scores]


def _groups(photos: Iterator[Photo], max_bytes: int) -> Iterator[list[Photo]]:
    group: list[Photo] = []
    size = 0
    for photo in photos:
        own = len(photo.jpeg) + 1500  # for its row of the index, and its names in the zip file
        if group and size + own > max_bytes:
            yield group
            group, size = [], 0
        group.append(photo)
        size += own
    if group:
        yield group


def _read(path: Path) -> Iterator[Photo]:
    with zipfile.ZipFile(path) as piece:
        for number, row in enumerate(json.loads(piece.read(INDEX))):
            yield Photo(piece.read(f"{number:06}.jpg"), row["labels"], row["scores"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["split", "join"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--mib", type=float, default=60.0, help="largest size of a piece")
    a = parser.parse_args()
    if a.action == "split":
        print(f"{split(Pack.open(a.source), a.target, int(a.mib * MIB))} pieces")
    else:
        print(f"{len(join(a.source, a.target))} photos")


if __name__ == "__main__":
    main()
