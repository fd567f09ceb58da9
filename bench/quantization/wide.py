"""A wide input beside a square one on 16:9 images: COCO AP and latency.

    .venv/bin/python bench/quantization/wide.py MODEL --calibration DIR --images DIR \\
        --annotations FILE [--size 640x384] [--rounds 200]

COCO's photos are cropped to the largest 16:9 part in their middle, those that calibrate too. Boxes
are clipped to the crop; one of which less than half of the area is left is dropped, a crowd only
where nothing is left. MODEL is built at 640x640 and at the other size, so it must be one that can
be built for another size. Prints COCO AP and the median milliseconds from an image's bytes in the
model's input to its candidate boxes above the default threshold, the variants of both sizes timed
alternately.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from PIL import Image

from bench.command_line import dataset_parser, print_header, print_row
from bench.serving import built
from quantizer.calibration.images import find_images
from quantizer.evaluation.accuracy import evaluate
from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.image import MAX_PIXELS
from service.vision.postprocess import Query

SQUARE: Final = "640x640"
ASPECT: Final = 16 / 9
LEAST: Final = 0.5  # of a box's area that must be left
TIMED_IMAGES: Final = 16
WARM_UP: Final = 10  # rounds
QUALITY: Final = 95

Crop = tuple[int, int, int, int]  # left, top, right, bottom


def main() -> None:
    parser = dataset_parser(__doc__)
    parser.add_argument("--size", default="640x384")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        calibration, images = Path(scratch) / "calibration", Path(scratch) / "images"
        crop_all(find_images(arguments.calibration), calibration)
        annotations = crop_annotated(arguments.images, arguments.annotations, images)
        build = (arguments.model, "--calibration", calibration, "--size")
        folders = {
            size: stack.enter_context(built(*build, size)) for size in (SQUARE, arguments.size)
        }
        accuracy = {
            size: evaluate(folder, images, annotations, 0, lambda _: None).variants
            for size, folder in folders.items()
        }
        photos = [path.read_bytes() for path in find_images(images)[:TIMED_IMAGES]]
        ms = milliseconds(folders, photos, arguments.rounds)
    print_header("", "input", "AP", "AP50", "against the square", "ms", "speed: square = 1")
    for size, variants in accuracy.items():
        for name, scores in variants.items():
            lost = scores.ap - accuracy[SQUARE][name].ap
            taken = ms[size, name]
            print_row(
                *(name, size, f"{scores.ap:.4f}", f"{scores.ap50:.4f}", f"{lost:+.4f}"),
                *(f"{taken:.2f}", f"{ms[SQUARE, name] / taken:.2f}"),
            )


def milliseconds(
    folders: Mapping[str, Path], photos: Sequence[bytes], rounds: int
) -> dict[tuple[str, str], float]:
    """The median by size and variant: each round gives every one of them the next image."""
    seconds: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        detectors = {}
        for size, folder in folders.items():
            manifest = read_manifest(folder)
            for name in manifest.variants:
                detector = Detector.load(folder, manifest, name)
                detectors[size, name] = stack.enter_context(closing(detector))
        prepared = {
            each: [detector.preprocess(detector.decode(data, MAX_PIXELS)) for data in photos]
            for each, detector in detectors.items()
        }
        for done in range(-WARM_UP, rounds):
            for each, detector in detectors.items():
                image = prepared[each][done % len(photos)]
                start = time.perf_counter()
                detector.postprocess(detector.infer(image), image, Query())
                if done >= 0:
                    seconds.setdefault(each, []).append(time.perf_counter() - start)
    return {each: float(np.median(times)) * 1000 for each, times in seconds.items()}


def crop_all(paths: Sequence[Path], out: Path) -> None:
    out.mkdir()
    for path in paths:
        with Image.open(path) as photo:
            photo.crop(crop_of(*photo.size)).convert("RGB").save(
                out / f"{path.stem}.jpg", quality=QUALITY
            )


def crop_annotated(images: Path, annotations: Path, out: Path) -> Path:
    """Crop the images and their boxes; returns the new annotations."""
    data_set = json.loads(annotations.read_text())
    crop_all([images / record["file_name"] for record in data_set["images"]], out)
    crops = {}
    for record in data_set["images"]:
        left, top, right, bottom = crop = crop_of(record["width"], record["height"])
        record.update(width=right - left, height=bottom - top)
        record["file_name"] = f"{Path(record['file_name']).stem}.jpg"
        crops[record["id"]] = crop
    cropped = (crop_box(box, crops[box["image_id"]]) for box in data_set["annotations"])
    data_set["annotations"] = [box for box in cropped if box is not None]
    (out / "annotations.json").write_text(json.dumps(data_set))
    return out / "annotations.json"


def crop_of(width: int, height: int) -> Crop:
    """The largest 16:9 part in the middle."""
    kept_width = min(width, round(height * ASPECT))
    kept_height = min(height, round(width / ASPECT))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return left, top, left + kept_width, top + kept_height


def crop_box(box: dict[str, Any], crop: Crop) -> dict[str, Any] | None:
    """An annotation clipped to the crop; None where too little of it is left.

    Its area, which COCO takes from the mask, shrinks as the box does.
    """
    left, top, right, bottom = crop
    x, y, width, height = box["bbox"]
    x1, x2 = np.clip([x, x + width], left, right) - left
    y1, y2 = np.clip([y, y + height], top, bottom) - top
    share = (x2 - x1) * (y2 - y1) / max(width * height, 1e-9)
    if share <= 0 or (share < LEAST and not box.get("iscrowd")):
        return None
    kept = {key: value for key, value in box.items() if key != "segmentation"}
    area = box.get("area", width * height) * share
    return kept | {"bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)], "area": area}


if __name__ == "__main__":
    main()
