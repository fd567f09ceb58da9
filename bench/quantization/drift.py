"""How the agreement of two variants changes with the images: what the shadow's metrics show.

    .venv/bin/python bench/quantization/drift.py FOLDER --images DIR [--a fp32] [--b int8]

The images are darkened, blurred and so on; both variants detect on each, at the server's default
thresholds. Prints, for each change, the boxes of a, the share of them that b matches, and the
agreement, which is 1 when both find the same boxes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from bench.command_line import parser_of, print_header, print_row
from quantizer.calibration.images import find_images
from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.agreement import agreement
from service.vision.image import MAX_PIXELS, Photo, decode_image
from service.vision.postprocess import Query


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, sigma, (*image.size[::-1], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


CHANGES: Final[Mapping[str, Callable[[Image.Image], Image.Image]]] = {
    "unchanged": lambda image: image,
    "brightness x 0.2": lambda image: ImageEnhance.Brightness(image).enhance(0.2),
    "contrast x 3": lambda image: ImageEnhance.Contrast(image).enhance(3),
    "grey and inverted": lambda image: ImageOps.invert(image.convert("L")).convert("RGB"),
    "blurred, radius 6": lambda image: image.filter(ImageFilter.GaussianBlur(6)),
    "noisy, sigma 60": partial(noisy, sigma=60),
}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, help="model folder")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--a", default="fp32")
    parser.add_argument("--b", default="int8")
    options = parser.parse_args()
    manifest = read_manifest(options.folder)
    a, b = (Detector.load(options.folder, manifest, name) for name in (options.a, options.b))
    files = (path.read_bytes() for path in find_images(options.images))
    images = [decode_image(data, MAX_PIXELS).pixels for data in files]
    print_header(f"{len(images)} images", f"boxes of {options.a}", "matched", "agreement")
    for name, change in CHANGES.items():
        changed = (np.asarray(change(Image.fromarray(p))) for p in images)
        photos = [Photo.from_pixels(pixels) for pixels in changed]
        agreed = agreement([(a.detect(p, Query()), b.detect(p, Query())) for p in photos])
        print_row(name, agreed.boxes_a, f"{agreed.matched:.3f}", f"{1 - agreed.drop:.3f}")


if __name__ == "__main__":
    main()
