"""Each variant's boxes against those of fp32, image by image, at the serving thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantizer.calibration.images import read_pixels
from service.inference.detector import Detector
from service.progress import Progress, ReportProgress
from service.vision.agreement import Agreement, agreement
from service.vision.detections import Detections
from service.vision.image import Photo, Pixels
from service.vision.postprocess import Query

MAX_EXAMPLES: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One image and the boxes that fp32 and int8 find in it."""

    name: str
    pixels: Pixels
    fp32: Detections
    int8: Detections


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Agreement with fp32 by variant, and the images with the most boxes."""

    agreements: Mapping[str, Agreement]
    examples: tuple[Example, ...]


def compare_variants(
    detectors: Mapping[str, Detector], paths: Sequence[Path], progress: ReportProgress
) -> Comparison:
    """Run every variant on every image that can be decoded."""
    pairs: dict[str, list[tuple[Detections, Detections]]]
    pairs = {name: [] for name in detectors if name != "fp32"}
    examples: list[Example] = []
    query = Query()
    progress(Progress("compare", 0, len(paths)))
    for done, (path, pixels) in enumerate(zip(paths, read_pixels(paths), strict=True), start=1):
        if pixels is not None:
            photo = Photo.from_pixels(pixels)
            fp32 = detectors["fp32"].detect(photo, query)
            for name, boxes in pairs.items():
                boxes.append((fp32, detectors[name].detect(photo, query)))
            examples.append(Example(path.name, pixels, *pairs["int8"][-1]))
            examples = with_most_boxes(examples)
        progress(Progress("compare", done, len(paths)))
    agreements = {name: agreement(boxes) for name, boxes in pairs.items()}
    return Comparison(agreements, tuple(examples))


def with_most_boxes(examples: Sequence[Example]) -> list[Example]:
    """At most MAX_EXAMPLES, those with the most fp32 boxes; an example needs at least one box."""
    shown = [example for example in examples if len(example.fp32) or len(example.int8)]
    return sorted(shown, key=lambda example: -len(example.fp32))[:MAX_EXAMPLES]
