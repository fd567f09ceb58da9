"""Folders of photos -> one pack on disk that training reads without decoding a JPEG twice.

find -> decode -> drop what is too small, seen before or held out -> shrink -> append
"""

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

LONG_SIDE: Final = 576  # pixels of the longer side that is kept: 20,000 photos fit into memory
SHORTEST: Final = 160  # photos with a shorter side than this teach little
SAME: Final = 6  # differing bits, of 64, up to which two difference hashes mean one photo
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})
CENSUS: Final = "census.npy"  # that zoo.train.census leaves in the folder
HELD_OUT: Final = "val2017"  # no source folder of COCO's validation images is ever read


@dataclass(frozen=True, slots=True)
class Pack:
    """Photos as raw RGB: at full size and at half size, so that shrinking does not alias."""

    pixels: Pixels  # u8[bytes], memory-mapped
    places: NDArray[np.int64]  # [P, 2 levels, 3]: offset, height, width
    labels: dict[int, NDArray[np.float32]]  # photo -> [B, 5]: class, x1, y1, x2, y2 in 0..1
    seen: NDArray[np.float16] | None = None  # [P, 80] best score of each class, by the teacher

    @classmethod
    def open(cls, folder: Path) -> Self:
        labels = json.loads((folder / "labels.json").read_text())
        census = folder / CENSUS
        return cls(
            np.memmap(folder / "pixels.u8", np.uint8, "r"),
            np.load(folder / "places.npy"),
            {int(k): np.asarray(v, np.float32).reshape(-1, 5) for k, v in labels.items()},
            np.load(census) if census.exists() else None,
        )

    def __len__(self) -> int:
        return len(self.places)

    def photo(self, number: int, level: int) -> Pixels:
        """u8[H,W,3]: level 0 is full size, level 1 half."""
        offset, height, width = self.places[number, level]
        flat = self.pixels[offset : offset + height * width * 3]
        return flat.reshape(height, width, 3)


def pack(sources: list[Path], held_out: list[Path], target: Path) -> Pack:
    """Write the pack of every photo under the sources; prints what was dropped and why."""
    target.mkdir(parents=True, exist_ok=True)
    forbidden = _hashes(held_out)
    seen: set[int] = set()
    dropped = dict.fromkeys(("unreadable", "small", "grey", "held out", "twice"), 0)
    places: list[list[tuple[int, int, int]]] = []
    labels: dict[int, list[list[float]]] = {}
    known = _labels(sources)
    offset = 0
    with (target / "pixels.u8.part").open("wb") as blob:
        for path in _files(sources):
            if any(HELD_OUT in part for part in path.parts):
                continue
            photo = _read(path)
            reason = _refusal(photo, forbidden, seen)
            if photo is None or reason:
                dropped[reason] += 1
                continue
            if path in known:
                labels[len(places)] = known[path]
            levels = []
            for scale in (1, 2):
                small = photo if scale == 1 else _fit(photo, LONG_SIDE // scale)
                blob.write(small.tobytes())
                levels.append((offset, small.height, small.width))
                offset += small.height * small.width * 3
            places.append(levels)
            if len(places) % 500 == 0:
                print(f"{len(places)} photos, {len(labels)} of them labelled", flush=True)
    np.save(target / "places.npy", np.asarray(places, np.int64))
    (target / "labels.json").write_text(json.dumps(labels))
    (target / CENSUS).unlink(missing_ok=True)
    (target / "pixels.u8.part").replace(target / "pixels.u8")
    print(f"{len(places)} photos, {len(labels)} labelled; dropped: {dropped}")
    return Pack.open(target)


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


def _refusal(photo: Image.Image | None, forbidden: list[int], seen: set[int]) -> str:
    if photo is None:
        return "unreadable"
    if min(photo.size) < SHORTEST:
        return "small"
    if np.asarray(photo.resize((32, 32))).std(axis=2).mean() < 1:
        return "grey"
    own = _hash(photo)
    mirrored = _hash(ImageOps.mirror(photo))
    if any(min((own ^ h).bit_count(), (mirrored ^ h).bit_count()) <= SAME for h in forbidden):
        return "held out"
    if own in seen:
        return "twice"
    seen.add(own)
    return ""


def _hash(image: Image.Image) -> int:
    """The 64-bit difference hash: is each cell of a 9x8 thumbnail brighter than its neighbour?"""
    thumbnail = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int("".join("01"[int(b)] for b in (np.diff(thumbnail, axis=1) > 0).ravel()), 2)


def _hashes(folders: list[Path]) -> list[int]:
    photos = (_read(path) for path in _files(folders))
    return [_hash(photo) for photo in photos if photo is not None]


def _labels(sources: list[Path]) -> dict[Path, list[list[float]]]:
    """Boxes of every class of COCO: from its JSON files, and from YOLO's text beside images."""
    found: dict[Path, list[list[float]]] = {}
    for source in sources:
        by_name = {path.name: path for path in _files([source])}
        for path in sorted(source.rglob("*.json")):
            found |= _coco_labels(path, by_name)
        for path in sorted(source.rglob("labels/train2017/*.txt")):
            photo = by_name.get(f"{path.stem}.jpg")
            rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
            if photo is not None:
                found[photo] = [_corners(int(r[0]), *map(float, r[1:5])) for r in rows]
    return found


def _coco_labels(path: Path, by_name: dict[str, Path]) -> dict[Path, list[list[float]]]:
    try:
        document = json.loads(path.read_text())
        names = {c["id"]: c["name"] for c in document["categories"]}
        images = {i["id"]: i for i in document["images"]}
        annotations = document["annotations"]
    except (KeyError, TypeError, ValueError):
        return {}
    if set(names.values()) != set(COCO_NAMES):
        return {}  # fewer classes: whatever it does not name is not background
    found: dict[Path, list[list[float]]] = {
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
        found[photo].append([label, x / wide, y / high, (x + w) / wide, (y + h) / high])
    return found


def _corners(label: int, x: float, y: float, w: float, h: float) -> list[float]:
    return [label, x - w / 2, y - h / 2, x + w / 2, y + h / 2]
