"""Folders of photos -> one pack on disk of decoded pixels.

find -> decode -> drop small, grey, repeated and held-out photos -> shrink -> append

python -m zoo.train.pack PACK --held-out VAL SOURCE ...
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from quantizer.model.coco_names import COCO_NAMES

Pixels = NDArray[np.uint8]

LONG_SIDE: Final = 576  # pixels of the longer side after shrinking: 20,000 photos fit into memory
MIN_SIDE: Final = 160  # pixels of the shorter side: smaller photos are dropped
MAX_HASH_DISTANCE: Final = 6  # bits of 64: up to it, two difference hashes mean one photo
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})
CLASS_SCORES: Final = "class_scores.npy"  # written by zoo.train.class_scores
HELD_OUT: Final = "val2017"  # folders of COCO's validation images are never read


@dataclass(frozen=True, slots=True)
class Pack:
    """Photos as raw RGB: at full size and at half size, so that shrinking does not alias."""

    pixels: Pixels  # u8[bytes], memory-mapped
    places: NDArray[np.int64]  # [P, 2 levels, 3]: offset, height, width
    labels: dict[int, NDArray[np.float32]]  # photo -> [B, 5]: class, x1, y1, x2, y2 in 0..1
    class_scores: NDArray[np.float16] | None = None  # [P, 80] the teacher's best of each class

    @classmethod
    def open(cls, folder: Path) -> Self:
        labels = json.loads((folder / "labels.json").read_text())
        class_scores = folder / CLASS_SCORES
        return cls(
            np.memmap(folder / "pixels.u8", np.uint8, "r"),
            np.load(folder / "places.npy"),
            {int(k): np.asarray(v, np.float32).reshape(-1, 5) for k, v in labels.items()},
            np.load(class_scores) if class_scores.exists() else None,
        )

    def __len__(self) -> int:
        return len(self.places)

    def photo(self, number: int, level: int) -> Pixels:
        """u8[H,W,3]: level 0 is full size, level 1 half."""
        offset, height, width = self.places[number, level]
        flat = self.pixels[offset : offset + height * width * 3]
        return flat.reshape(height, width, 3)


def pack(sources: list[Path], held_out: list[Path], target: Path) -> Pack:
    """Write a pack of all photos below the sources; prints how many were dropped, and why."""
    forbidden = _hashes(held_out)
    hashes: set[int] = set()
    dropped = dict.fromkeys(("unreadable", "small", "grey", "held out", "twice"), 0)
    labels_of = _labels(sources)
    with PackWriter(target) as writer:
        for path in _files(sources):
            if any(HELD_OUT in part for part in path.parts):
                continue
            photo = _read(path)
            reason = _drop_reason(photo, forbidden, hashes)
            if photo is None or reason:
                dropped[reason] += 1
                continue
            writer.add(photo, labels_of.get(path))
            if len(writer) % 500 == 0:
                print(f"{len(writer)} photos", flush=True)
    made = Pack.open(target)
    print(f"{len(made)} photos, {len(made.labels)} labelled; dropped: {dropped}")
    return made


class PackWriter:
    """Writes a pack photo by photo; the folder has the whole pack when the block is left."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._places: list[list[tuple[int, int, int]]] = []
        self._labels: dict[int, list[list[float]]] = {}
        self._offset = 0

    def __enter__(self) -> Self:
        self._target.mkdir(parents=True, exist_ok=True)
        self._part = self._target / "pixels.u8.part"
        self._file = self._part.open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            np.save(self._target / "places.npy", np.asarray(self._places, np.int64))
            (self._target / "labels.json").write_text(json.dumps(self._labels))
            (self._target / CLASS_SCORES).unlink(missing_ok=True)
            self._part.replace(self._target / "pixels.u8")

    def __len__(self) -> int:
        return len(self._places)

    def add(self, photo: Image.Image, labels: list[list[float]] | None) -> None:
        """Append an RGB photo, and its boxes [class, x1, y1, x2, y2] in 0..1 if it is labelled."""
        if labels is not None:
            self._labels[len(self)] = labels
        levels = []
        for small in (photo, _fit(photo, LONG_SIDE // 2)):
            self._file.write(small.tobytes())
            levels.append((self._offset, small.height, small.width))
            self._offset += small.height * small.width * 3
        self._places.append(levels)


def _files(sources: list[Path]) -> Iterator[Path]:
    for source in sources:
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                yield path


def _read(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (LONG_SIDE, LONG_SIDE))
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return _fit(upright, LONG_SIDE)


def _fit(image: Image.Image, long_side: int) -> Image.Image:
    scale = long_side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def _drop_reason(photo: Image.Image | None, forbidden: list[int], hashes: set[int]) -> str:
    if photo is None:
        return "unreadable"
    if min(photo.size) < MIN_SIDE:
        return "small"
    if np.asarray(photo.resize((32, 32))).std(axis=2).mean() < 1:
        return "grey"
    own = _hash(photo)
    mirrored = _hash(ImageOps.mirror(photo))
    distances = (min((own ^ h).bit_count(), (mirrored ^ h).bit_count()) for h in forbidden)
    if any(distance <= MAX_HASH_DISTANCE for distance in distances):
        return "held out"
    if own in hashes:
        return "twice"
    hashes.add(own)
    return ""


def _hash(image: Image.Image) -> int:
    """The 64-bit difference hash: whether each cell of a 9x8 thumbnail is darker than the next."""
    thumbnail = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int("".join("01"[int(b)] for b in (np.diff(thumbnail, axis=1) > 0).ravel()), 2)


def _hashes(folders: list[Path]) -> list[int]:
    photos = (_read(path) for path in _files(folders))
    return [_hash(photo) for photo in photos if photo is not None]


def _labels(sources: list[Path]) -> dict[Path, list[list[float]]]:
    """Boxes of COCO's classes, from COCO's JSON files and from YOLO's text files."""
    labels: dict[Path, list[list[float]]] = {}
    for source in sources:
        by_name = {path.name: path for path in _files([source])}
        for path in sorted(source.rglob("*.json")):
            labels |= _coco_labels(path, by_name)
        for path in sorted(source.rglob("labels/train2017/*.txt")):
            photo = by_name.get(f"{path.stem}.jpg")
            rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
            if photo is not None:
                labels[photo] = [_corners(int(r[0]), *map(float, r[1:5])) for r in rows]
    return labels


def _coco_labels(path: Path, by_name: dict[str, Path]) -> dict[Path, list[list[float]]]:
    try:
        document = json.loads(path.read_text())
        names = {c["id"]: c["name"] for c in document["categories"]}
        images = {i["id"]: i for i in document["images"]}
        annotations = document["annotations"]
    except (KeyError, TypeError, ValueError):
        return {}
    if set(names.values()) != set(COCO_NAMES):
        return {}  # with fewer classes, unlabelled objects are not background
    labels: dict[Path, list[list[float]]] = {
        by_name[Path(i["file_name"]).name]: []
        for i in images.values()
        if Path(i["file_name"]).name in by_name
    }
    for item in annotations:
        image = images.get(item["image_id"])
        photo = by_name.get(Path(image["file_name"]).name) if image else None
        if image is None or photo is None or item.get("iscrowd"):
            continue
        x, y, w, h = item["bbox"]
        wide, high = image["width"], image["height"]
        label = COCO_NAMES.index(names[item["category_id"]])
        labels[photo].append([label, x / wide, y / high, (x + w) / wide, (y + h) / high])
    return labels


def _corners(label: int, x: float, y: float, w: float, h: float) -> list[float]:
    return [label, x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path, help="folder to write")
    parser.add_argument("sources", type=Path, nargs="+", help="folders of photos")
    parser.add_argument(
        "--held-out", type=Path, action="append", required=True,
        help="folder whose photos, and photos that look like them, are never packed",
    )  # fmt: skip
    arguments = parser.parse_args()
    pack(arguments.sources, arguments.held_out, arguments.pack)


if __name__ == "__main__":
    main()
