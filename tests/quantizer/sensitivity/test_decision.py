"""The decision on real graphs, one of which has a layer that cannot be quantized well."""

import dataclasses
from itertools import pairwise

import onnx
import pytest

from quantizer.calibration.statistics import observe
from quantizer.compile.builder import Builder
from quantizer.compile.load import load_builder
from quantizer.model.graph import Graph
from quantizer.qdq.format import PLAIN
from quantizer.qdq.placement import plan_placement
from quantizer.sensitivity.decision import MAX_LOSS, Decision, decide, float_costs
from quantizer.sensitivity.simulation import SAMPLES, SampleSearch, Simulation, find_samples
from quantizer.sensitivity.sqnr import Reading, decibels, from_decibels
from tests.quantizer.graphs import images
from tests.quantizer.sensitivity.simulations import YOLOV5, simulation_of
from tests.tiny_models import INPUT, TINY


def decided(
    simulation: Simulation,
    builder: Builder,
    min_sqnr: float | None,
    refined: int = 0,
    **asked: str,
) -> Decision:
    return decide(simulation, asked, builder, min_sqnr, lambda _: None, refined)


def reasons(decision: Decision) -> dict[str, str]:
    return {kept.layer: kept.reason for kept in decision.placement.kept_float}


@pytest.fixture(scope="module")
def openvino() -> Builder:
    return load_builder("openvino", 1)


@pytest.mark.parametrize("name", TINY)
def test_a_placement_of_all_layers_has_noise_and_an_empty_one_has_none(name):
    simulation = simulation_of(name)
    whole = plan_placement(simulation.graph)
    empty = plan_placement(simulation.graph, dict.fromkeys(whole.layers, "tried float"))
    assert simulation.noise(whole) > 0
    assert simulation.noise(empty) < 1e-9


def test_a_layer_that_cannot_be_quantized_is_kept_float_with_the_reason(openvino):
    simulation = simulation_of("sabotaged")
    decision = decided(simulation, openvino, 25.0)
    assert decision.sensitivity.before > 10 * from_decibels(25.0)
    assert "detect8" in reasons(decision)
    assert reasons(decision)["detect8"].startswith("sensitive: alone in int8 it leaves ")
    assert len(reasons(decision)) < 5
    assert simulation.noise(decision.placement) == pytest.approx(decision.sensitivity.after)


def test_the_sqnr_stays_above_the_minimum():
    simulation, builder = simulation_of("yolov5"), load_builder("onnxruntime", 1)
    all_int8 = decibels(simulation.noise(plan_placement(simulation.graph)))
    decision = decided(simulation, builder, all_int8 + 6)
    assert decision.sensitivity.found.kept_float
    assert decision.frontier == ()
    assert decibels(simulation.noise(decision.placement)) >= all_int8 + 6
    assert decided(simulation, builder, all_int8 - 1).sensitivity.found.kept_float == ()


def test_without_a_minimum_the_fewest_layers_stay_float_that_keep_the_detections():
    simulation, builder = simulation_of("sabotaged"), load_builder("onnxruntime", 1)
    decision = decided(simulation, builder, None)
    first, *_, last = decision.frontier
    assert (first.kept_float, last.kept_float) == ((), decision.sensitivity.found.kept_float)
    assert first.loss > MAX_LOSS >= last.loss
    assert all(point.loss > MAX_LOSS for point in decision.frontier[:-1])
    assert "detect8" in reasons(decision)
    assert simulation.loss(decision.placement) == pytest.approx(last.loss)


def test_a_detector_that_quantizes_well_keeps_no_layer_float():
    decision = decided(simulation_of("yolov5"), load_builder("onnxruntime", 1), None)
    assert [point.kept_float for point in decision.frontier] == [()]
    assert decision.frontier[0].loss <= MAX_LOSS
    assert reasons(decision) == {}


def test_a_better_bound_comes_before_a_float_layer():
    simulation, builder = simulation_of("yolov5"), load_builder("onnxruntime", 1)
    tensors = plan_placement(simulation.graph).groups["stem.act.y"]
    far = dataclasses.replace(simulation, ranges=simulation.ranges.scaled({tensors: 0.25}))
    without, refined = (decided(far, builder, None, images) for images in (0, 4))
    assert without.ranges is far.ranges
    assert refined.ranges.of(tensors).factor > 0.25
    assert without.frontier[0].loss > MAX_LOSS
    assert refined.frontier[0].loss < without.frontier[0].loss
    assert len(refined.placement.kept_float) < len(without.placement.kept_float)
    better = dataclasses.replace(far, ranges=refined.ranges)
    assert better.loss(refined.placement) == pytest.approx(refined.frontier[-1].loss)


class WithoutKernel:
    """A runtime that computes the first convolution in float, whatever the graph says."""

    qdq_format = PLAIN

    def executed(self, model: onnx.ModelProto) -> dict[str, str]:
        layers = [node.name for node in model.graph.node if node.op_type == "Conv"]
        return {name: "f32" if name == "stem" else "u8" for name in layers}


def test_a_float_layer_costs_its_share_of_the_products_and_of_the_values():
    graph = Graph.of(onnx.shape_inference.infer_shapes(TINY["yolov5"]()))
    costs = float_costs(graph, ["stem", "detect8"])
    assert sum(costs.values()) == pytest.approx(1)
    # stem: 3x3 on 3 channels; detect8: 1x1. Both write maps; the stem's is the larger.
    assert costs["stem"] > costs["detect8"] > 0
    alone = float_costs(graph, ["stem"])
    assert alone == {"stem": 1.0}


def test_what_the_server_computes_costs_nothing():
    graph = Graph.of(onnx.shape_inference.infer_shapes(TINY["yolov5"]()))
    whole = float_costs(graph, ["stem", "detect8"])
    part = float_costs(graph, ["stem", "detect8"], {"detect8": 0.5})
    assert whole["detect8"] / 2 < part["detect8"] < whole["detect8"]


def test_the_frontier_costs_more_with_each_point(openvino):
    decision = decided(simulation_of("sabotaged"), openvino, None)
    costs = [point.cost for point in decision.frontier]
    assert costs[0] == 0
    assert all(later > earlier for earlier, later in pairwise(costs))


def test_two_searches_keep_the_same_layers(openvino):
    """Nothing that is measured in milliseconds decides."""
    first, second = (decided(simulation_of("sabotaged"), openvino, None) for _ in range(2))
    assert first.frontier == second.frontier


def test_a_layer_without_an_int8_kernel_is_not_quantized():
    decision = decided(simulation_of("yolox"), WithoutKernel(), 0.0)
    assert reasons(decision) == {"stem": "the runtime has no int8 kernel for it here"}
    assert "images" not in decision.placement.tensors


def test_a_layer_named_by_the_user_stays_float(openvino):
    asked = {"stem": "named"}
    decision = decided(simulation_of("yolov5", **asked), openvino, 0.0, **asked)
    assert reasons(decision) == asked


def test_without_known_precisions_every_layer_is_searched():
    simulation = simulation_of("sabotaged")
    decision = decided(simulation, load_builder("onnxruntime", 1), 25.0)
    assert "detect8" in reasons(decision)


def test_samples_are_the_first_images_with_a_detection_the_strongest_signal_first():
    graph = Graph.of(TINY["yolov5"]())
    found = find_samples(graph.model, Reading.of(YOLOV5, INPUT), images(SAMPLES + 4), 1)
    signals = [sample.reference.signal for sample in found]
    assert signals == sorted(signals, reverse=True)
    first = sorted(image.tobytes() for image in images(SAMPLES))
    assert sorted(sample.image.tobytes() for sample in found) == first


def test_samples_may_be_looked_for_in_every_second_image():
    graph = Graph.of(TINY["yolov5"]())
    search = SampleSearch(Reading.of(YOLOV5, INPUT), count=2, step=2)
    observe(graph, [], images(8), 1, watch=search.see)
    chosen = sorted(image.tobytes() for image in images(3)[::2])
    assert sorted(sample.image.tobytes() for sample in search.samples) == chosen


def test_the_noise_is_measured_on_the_first_samples():
    simulation = simulation_of("yolov5")
    placement = plan_placement(simulation.graph)
    one, two = (
        dataclasses.replace(simulation, noise_samples=count).noise(placement) for count in (1, 2)
    )
    alone = dataclasses.replace(simulation, samples=simulation.samples[:1])
    assert one == alone.noise(placement) != two


def test_without_a_sample_everything_is_quantized(openvino):
    simulation = simulation_of("yolov5")
    without = dataclasses.replace(simulation, samples=[])
    decision = decided(without, openvino, 20.0)
    assert decision.sensitivity is None
    assert decision.placement == plan_placement(simulation.graph)
