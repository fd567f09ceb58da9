"""What becomes of the agreement of two variants when the pictures change: the signal of the shadow.

    .venv/bin/python bench/drift.py FOLDER --images DIR [--a fp32] [--b int8]

The pictures are darkened, blurred and so on; both look at each, at the server's thresholds.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.agreement import Agreement, agreement
from service.vision.image import MOST_PIXELS, Photo, decode_image
from service.vision.postprocess import Query


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, sigma, (*image.size[::-1], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


CHANGES: Final[Mapping[str, Callable[[Image.Image], Image.Image]]] = {
    "as they are": lambda image: image,
    "at a fifth of their light": lambda image: ImageEnhance.Brightness(image).enhance(0.2),
    "at three times their contrast": lambda image: ImageEnhance.Contrast(image).enhance(3),
    "grey and inverted": lambda image: ImageOps.invert(image.convert("L")).convert("RGB"),
    "blurred, radius 6": lambda image: image.filter(ImageFilter.GaussianBlur(6)),
    "noisy, sigma 60": partial(noisy, sigma=60),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--a", default="fp32")
    parser.add_argument("--b", default="int8")
    options = parser.parse_args()
    manifest = read_manifest(options.folder)
    a, b = (Detector.load(options.folder, manifest, name) for name in (options.a, options.b))
    pictures = [decode_image(p.read_bytes(), MOST_PIXELS) for p in sorted(options.images.iterdir())]
    print(f"| {len(pictures)} pictures | boxes of {options.a} | matched | agreement |")
    print("|---|---|---|---|")
    for name, change in CHANGES.items():
        changed = (np.asarray(change(Image.fromarray(p))) for p in pictures)
        found = _agreement(a, b, [Photo.of(pixels) for pixels in changed])
        print(f"| {name} | {found.boxes_a} | {found.matched:.3f} | {1 - found.drop:.3f} |")


def _agreement(a: Detector, b: Detector, pictures: list[Photo]) -> Agreement:
    query = Query()
    return agreement([(a.detect(p, query), b.detect(p, query)) for p in pictures])


if __name__ == "__main__":
    main()
