import numpy as np
import pytest

from quantizer.calibration.ranges import RANGE_RULES
from quantizer.calibration.statistics import observe
from quantizer.int8 import Range, Scheme
from quantizer.model.float_model import read_float_model
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.quantize import Quantized, Ranges, quantize, shared_floor
from quantizer.qdq.weights import Weights
from tests.tiny_models import SIZE, save_tiny

IMAGE = Range(0.0, 1.0)


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    path = save_tiny(tmp_path_factory.mktemp("model"), "yolov5")
    graph = read_float_model(path, SIZE).graph
    placement = plan_placement(graph)
    random = np.random.default_rng(0)
    images = [random.random((1, 3, SIZE, SIZE), np.float32) for _ in range(4)]
    tensors = placement.tensors
    return graph, placement, observe(graph, tensors, images, 1).histograms


def quantized(observed, rule="uh", scheme=Scheme()) -> Quantized:  # noqa: B008
    graph, placement, histograms = observed
    return quantize(
        graph, placement, Ranges(graph, histograms, rule, scheme, IMAGE), Weights(graph)
    )


@pytest.mark.parametrize("rule", RANGE_RULES)
def test_the_image_keeps_its_own_range_under_every_rule(observed, rule):
    choice = quantized(observed, rule).ranges["images"]
    assert choice.bounds == IMAGE
    assert choice.params.scale == np.float32(1 / 255)
    assert choice.params.zero_point == 0


def test_each_of_the_256_pixel_values_is_one_step(observed):
    params = quantized(observed).ranges["images"].params
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.rint(pixels / params.scale).tolist() == list(range(256))


def test_silu_outputs_start_at_their_floor(observed):
    ranges = quantized(observed).ranges
    assert ranges["stem.act.y"].floor == pytest.approx(-0.2785)
    assert ranges["stem.act.y"].bounds.low == pytest.approx(-0.2785)


def test_a_group_has_one_choice_from_the_values_of_all_its_members(observed):
    _, placement, histograms = observed
    ranges = quantized(observed, "minmax").ranges
    assert set(ranges) == {site.group for site in placement.activations}
    members = [site.tensor for site in placement.activations if site.group == "p16.act.y"]
    assert members == ["p16.act.y", "sppf.cv2.act.y"]
    assert ranges["p16.act.y"].bounds == Range(
        min(histograms[name].low for name in members),
        max(histograms[name].high for name in members),
    )


def test_a_group_with_a_residual_add_starts_at_the_lower_of_the_floors(observed):
    choice = quantized(observed).ranges["c3.cv2.act.y"]  # concatenated with the residual Add
    assert choice.floor == pytest.approx(-0.557)
    assert choice.bounds.low == pytest.approx(-0.557)


@pytest.mark.parametrize(
    ("floors", "expected"),
    [([-0.3, 0.0], -0.3), ([0.0], 0.0), ([-0.3, None], None), ([None], None)],
)
def test_the_floor_of_a_group(floors, expected):
    assert shared_floor(floors) == expected


@pytest.mark.parametrize(("scheme", "kind"), [(Scheme(), np.uint8), (Scheme(True), np.int8)])
def test_the_scheme_reaches_every_choice(observed, scheme, kind):
    ranges = quantized(observed, scheme=scheme).ranges.values()
    assert {choice.params.zero_point.dtype for choice in ranges} == {np.dtype(kind)}


def test_the_same_histograms_give_the_same_bytes(observed):
    first, second = (quantized(observed).model.SerializeToString() for _ in range(2))
    assert first == second
