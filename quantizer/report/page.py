"""The report that people look at: report.html, one file that holds everything it shows."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, StrictUndefined
from PIL import Image

from quantizer.calibration.histogram import Histogram
from quantizer.qdq.quantize import GroupRange
from quantizer.report import charts
from quantizer.report.data import BlockReport, Report
from service.vision.detections import Detections
from service.vision.drawing import draw, encode
from service.vision.image import Pixels

TEMPLATE: Final = Path(__file__).with_name("page.html")
MOST_SAMPLES: Final = 4
SAMPLE_SIDE: Final = 560  # pixels of a sample's longer side
MOST_BLOCKS: Final = 24  # of the ranking; what comes after hurts less than can be seen


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One image and what fp32 and another variant found in it."""

    name: str
    pixels: Pixels
    reference: Detections
    candidate: Detections


@dataclass(frozen=True, slots=True)
class Sample:
    """Two pictures with boxes, as data URIs."""

    name: str
    reference: str
    candidate: str
    left: str
    right: str


def render(
    report: Report,
    histograms: Mapping[str, Histogram],
    ranges: Mapping[str, GroupRange],
    seen: Sequence[Seen],
    class_name: Callable[[int], str],
) -> str:
    """The page as HTML, without scripts and without references to anything outside it."""
    found = report.sensitivity
    blocks = found.blocks[:MOST_BLOCKS] if found else ()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        report=report,
        seen="held-out" if report.agreement.held_out else "calibration",
        latency=charts.latency(report.ms, report.default),
        sensitivity=charts.sensitivity(
            [_label(block) for block in blocks],
            [block.sqnr_db for block in blocks],
            [block.freed for block in blocks],
        )
        if blocks
        else "",
        samples=[_sample(each, class_name) for each in seen],
        tensors={tensor.tensor: tensor for tensor in report.tensors},
        histograms={
            tensor.tensor: charts.histogram(
                histograms[tensor.tensor].bins, ranges[tensor.group].bounds, tensor.floor
            )
            for tensor in report.tensors
        },
    )


def most_telling(seen: Sequence[Seen]) -> list[Seen]:
    """The images with the most boxes; one without any, in both, tells nothing."""
    telling = [each for each in seen if len(each.reference) or len(each.candidate)]
    return sorted(telling, key=lambda each: -len(each.reference))[:MOST_SAMPLES]


def _label(block: BlockReport) -> str:
    first, others = block.layers[0], len(block.layers) - 1
    return f"{first} and {others} more" if others else first


def _sample(seen: Seen, class_name: Callable[[int], str]) -> Sample:
    left, right = (
        _picture(draw(seen.pixels, found, class_name)) for found in (seen.reference, seen.candidate)
    )
    return Sample(seen.name, "fp32", "int8", left, right)


def _picture(image: Image.Image) -> str:
    image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
    return "data:image/jpeg;base64," + base64.b64encode(encode(image, "image/jpeg")).decode()
