"""The charts are pictures inside the page, which name what they show."""

import base64
from xml.etree import ElementTree

import pytest

from quantizer.report import charts
from quantizer.report.data import BlockReport, PointReport

BLOCKS = [
    BlockReport(("model.0.conv",), 12.0, freed=True),
    BlockReport(("model.1.conv",), 40.0, freed=False),
]
POINTS = [PointReport((), 0.09, 0.0), PointReport(("model.0.conv",), 0.05, 0.1)]


@pytest.mark.parametrize(
    ("chart", "texts"),
    [
        (charts.latency({"fp32": 20.0, "int8": 8.0}, "int8"), {"fp32", "int8", "8.0 ms"}),
        (charts.sensitivity(BLOCKS), {"model.0.conv", "model.1.conv"}),
        (charts.frontier(POINTS, 0.06), {"0", "1", "predicted loss"}),
    ],
)
def test_a_chart_is_an_svg_inside_the_page(chart, texts):
    kind, data = chart.split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    root = ElementTree.fromstring(base64.b64decode(data))
    assert texts <= {text.strip() for text in root.itertext()}
