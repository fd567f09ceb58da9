import numpy as np
import pytest

from quantizer.calibration.ranges import RANGE_RULES
from quantizer.calibration.statistics import observe
from quantizer.int8 import Range, Scheme
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.quantize import Quantized, Ranges, quantize, shared_floor
from quantizer.qdq.weights import Weights
from tests.quantizer.graphs import graph_of, images

IMAGE = Range(0.0, 1.0)


@pytest.fixture(scope="module")
def observed():
    graph = graph_of("yolov5")
    placement = plan_placement(graph)
    return graph, placement, observe(graph, placement.tensors, images(4), 1).histograms


def quantized(observed, rule="uh", scheme=Scheme()) -> Quantized:  # noqa: B008
    graph, placement, histograms = observed
    return quantize(
        graph, placement, Ranges(graph, histograms, rule, scheme, IMAGE), Weights(graph)
    )


@pytest.mark.parametrize("rule", RANGE_RULES)
def test_under_every_rule_each_of_the_256_pixel_values_is_one_step(observed, rule):
    image = quantized(observed, rule).ranges["images"]
    assert image.bounds == IMAGE
    assert image.params.scale == np.float32(1 / 255)
    assert image.params.zero_point == 0
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.rint(pixels / image.params.scale).tolist() == list(range(256))


@pytest.mark.parametrize(
    ("group", "bound"),
    [
        ("stem.act.y", -0.2785),
        ("c3.cv2.act.y", -0.557),  # concatenated with the residual Add, which has the lower bound
    ],
)
def test_a_group_starts_at_the_lowest_analytic_bound_of_its_members(observed, group, bound):
    found = quantized(observed).ranges[group]
    assert found.floor == pytest.approx(bound)
    assert found.bounds.low == pytest.approx(bound)


def test_a_group_has_one_range_from_the_values_of_all_its_members(observed):
    _, placement, histograms = observed
    ranges = quantized(observed, "minmax").ranges
    assert set(ranges) == {site.group for site in placement.activations}
    members = [site.tensor for site in placement.activations if site.group == "p16.act.y"]
    assert members == ["p16.act.y", "sppf.cv2.act.y"]
    assert ranges["p16.act.y"].bounds == Range(
        min(histograms[name].low for name in members),
        max(histograms[name].high for name in members),
    )


def test_the_upper_bound_of_a_range_alone_can_be_scaled(observed):
    graph, placement, histograms = observed
    ranges = Ranges(graph, histograms, "uh", Scheme(), IMAGE)
    stem, image = placement.groups["stem.act.y"], placement.groups["images"]
    scaled = ranges.scaled({stem: 0.5})
    before, after = ranges.of(stem), scaled.of(stem)
    assert after.bounds == Range(before.bounds.low, before.bounds.high / 2)
    assert after.floor == before.floor
    assert after.params.scale < before.params.scale
    assert (before.factor, after.factor) == (1.0, 0.5)
    assert scaled.scaled({stem: 4.0}).of(stem).factor == 2.0
    assert (scaled.of(image).bounds, scaled.of(image).factor) == (IMAGE, 1.0)


@pytest.mark.parametrize(
    ("floors", "expected"),
    [([-0.3, 0.0], -0.3), ([0.0], 0.0), ([-0.3, None], None), ([None], None)],
)
def test_the_floor_of_a_group_is_its_lowest_bound_if_all_members_have_one(floors, expected):
    assert shared_floor(floors) == expected


@pytest.mark.parametrize(("scheme", "kind"), [(Scheme(), np.uint8), (Scheme(True), np.int8)])
def test_the_scheme_applies_to_every_range(observed, scheme, kind):
    ranges = quantized(observed, scheme=scheme).ranges.values()
    assert {found.params.zero_point.dtype for found in ranges} == {np.dtype(kind)}


def test_the_same_histograms_give_the_same_bytes(observed):
    first, second = (quantized(observed).model.SerializeToString() for _ in range(2))
    assert first == second
