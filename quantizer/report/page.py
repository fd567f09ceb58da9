"""The report for people: report.html, one self-contained file."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from quantizer.evaluation.comparison import Example
from quantizer.report import charts
from quantizer.report.data import Report
from quantizer.report.findings import Findings
from service.vision.drawing import draw, encode

TEMPLATE: Final = Path(__file__).with_name("page.html")
# It keeps the compiled template, for the next build of the process.
TEMPLATES: Final = Environment(
    loader=FileSystemLoader(TEMPLATE.parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)
SAMPLE_SIDE: Final = 560  # pixels of a sample's longer side
MAX_BLOCKS: Final = 24  # of the ranking; the noise of the others is too low to see


def render(report: Report, findings: Findings) -> str:
    """The page as HTML, without scripts and without references to anything outside it."""
    sensitivity = report.sensitivity
    blocks = sensitivity.blocks[:MAX_BLOCKS] if sensitivity else ()
    points = sensitivity.frontier if sensitivity else ()
    histograms = findings.calibration.statistics.histograms
    charted = charts.Histograms()
    return TEMPLATES.get_template(TEMPLATE.name).render(
        report=report,
        compared_on="held-out" if report.agreement.held_out else "calibration",
        latency=charts.latency(report.ms, report.default) if report.ms else "",
        sensitivity=charts.sensitivity(blocks) if blocks else "",
        frontier=charts.frontier(points, sensitivity.max_loss) if sensitivity and points else "",
        samples=[
            _sample(example, findings.manifest.class_name)
            for example in findings.judgement.comparison.examples
        ],
        tensors={tensor.tensor: tensor for tensor in report.tensors},
        histograms={
            tensor.tensor: charted.draw(
                histograms[tensor.tensor].bins,
                findings.quantized.ranges[tensor.group].bounds,
                tensor.floor,
            )
            for tensor in report.tensors
        },
    )


def _sample(example: Example, class_name: Callable[[int], str]) -> dict[str, str]:
    """The name of an image, and the image with each variant's boxes as a data URI."""
    pictures = {
        variant: _picture(draw(example.pixels, boxes, class_name))
        for variant, boxes in (("fp32", example.fp32), ("int8", example.int8))
    }
    return {"name": example.name} | pictures


def _picture(image: Image.Image) -> str:
    image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
    return "data:image/jpeg;base64," + base64.b64encode(encode(image, "image/jpeg")).decode()
