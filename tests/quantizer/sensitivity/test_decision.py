"""The decision on real graphs, one of which has a layer that cannot be quantized well."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantizer.calibration.statistics import observe
from quantizer.compile.builder import Builder
from quantizer.compile.runtime import load_builder
from quantizer.int8 import Range, Scheme
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.quantize import Ranges
from quantizer.qdq.weights import Weights
from quantizer.sensitivity.decision import Decision, decide
from quantizer.sensitivity.simulation import SAMPLES, Simulation, find_samples
from quantizer.sensitivity.sqnr import decibels, from_decibels
from service.vision.heads import HEADS
from tests.tiny_models import SIZE, TINY, save_tiny, yolov5

HEAD = HEADS["yolov5"]


def images(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.random((1, 3, SIZE, SIZE), np.float32) for _ in range(count)]


def simulation_of(model: onnx.ModelProto | str, folder: Path) -> Simulation:
    if isinstance(model, str):
        path, head = save_tiny(folder, model), HEADS.get(model, HEAD)
    else:
        path, head = folder / "model.onnx", HEAD
        onnx.save(model, path)
    graph = read_float_model(path, SIZE).graph
    histograms = observe(graph, plan_placement(graph).tensors, images(8), 1).histograms
    ranges = Ranges(graph, histograms, "uh", Scheme(), Range(0.0, 1.0))
    samples = find_samples(graph, head, SIZE, images(8), 1)
    return Simulation(graph, ranges, Weights(graph), None, head, SIZE, samples, 1)


def decided(simulation: Simulation, builder: Builder, min_sqnr: float, **asked: str) -> Decision:
    return decide(simulation, asked, builder, min_sqnr, lambda _: None)


def reasons(decision: Decision) -> dict[str, str]:
    return {kept.layer: kept.reason for kept in decision.placement.kept_float}


def sabotaged() -> onnx.ModelProto:
    """One channel of what detect8 reads is ten thousand times as wide as the others, and detect8
    takes that back: in float that is a channel like others, in int8 the others are lost."""
    model = yolov5()
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    maker, after = (
        next(node for node in model.graph.node if node.name == name)
        for name in ("n8.cv", "detect8")
    )
    weight = numpy_helper.to_array(values[maker.input[1]]).copy()
    bias = numpy_helper.to_array(values[maker.input[2]]).copy()
    reader = numpy_helper.to_array(values[after.input[1]]).copy()
    bias[0] += 30.0  # far into SiLU's linear part
    weight[0] *= 1e4
    bias[0] *= 1e4
    reader[:, 0] /= 1e4
    for node, index, array in ((maker, 1, weight), (maker, 2, bias), (after, 1, reader)):
        values[node.input[index]].CopyFrom(numpy_helper.from_array(array, node.input[index]))
    return model


@pytest.fixture(scope="module")
def openvino() -> Builder:
    return load_builder("openvino", 1)


@pytest.mark.parametrize("name", TINY)
def test_a_whole_placement_makes_noise_and_an_empty_one_none(name, tmp_path):
    simulation = simulation_of(name, tmp_path)
    whole = plan_placement(simulation.graph)
    empty = plan_placement(simulation.graph, dict.fromkeys(whole.layers, "tried float"))
    assert simulation.noise(whole) > 0
    assert simulation.noise(empty) < 1e-9


def test_the_layer_that_cannot_be_quantized_is_left_float_and_the_reason_told(tmp_path, openvino):
    simulation = simulation_of(sabotaged(), tmp_path)
    decision = decided(simulation, openvino, 25.0)
    assert decision.sensitivity.before > 10 * from_decibels(25.0)
    assert "detect8" in reasons(decision)
    assert reasons(decision)["detect8"].startswith("sensitive: alone in int8 it leaves ")
    assert len(reasons(decision)) < 5
    assert simulation.noise(decision.placement) == pytest.approx(decision.sensitivity.after)


def test_the_wanted_ratio_is_kept(tmp_path, openvino):
    simulation = simulation_of("yolov5", tmp_path)
    all_int8 = decibels(simulation.noise(plan_placement(simulation.graph)))
    decision = decided(simulation, openvino, all_int8 + 6)
    assert decision.sensitivity.kept_float
    assert decibels(simulation.noise(decision.placement)) >= all_int8 + 6
    assert decided(simulation, openvino, all_int8 - 1).sensitivity.kept_float == ()


def test_what_the_runtime_cannot_run_in_int8_is_not_quantized(tmp_path, openvino):
    decision = decided(simulation_of("yolox", tmp_path), openvino, 0.0)
    assert reasons(decision) == {"stem": "the runtime has no int8 kernel for it here"}
    assert "images" not in decision.placement.tensors


def test_what_was_asked_for_stays_float(tmp_path, openvino):
    decision = decided(simulation_of("yolov5", tmp_path), openvino, 0.0, stem="asked for")
    assert reasons(decision) == {"stem": "asked for"}


def test_a_runtime_without_a_profile_searches_by_noise_alone(tmp_path):
    simulation = simulation_of(sabotaged(), tmp_path)
    decision = decided(simulation, load_builder("onnxruntime", 1), 25.0)
    assert "detect8" in reasons(decision)


def test_probes_are_images_that_show_something():
    graph = Graph.of(TINY["yolov5"]())
    found = find_samples(graph, HEAD, SIZE, images(8), 1)
    assert len(found) == SAMPLES
    np.testing.assert_array_equal(found[0].image, images(1)[0])


def test_without_a_probe_everything_is_quantized(tmp_path, openvino):
    simulation = simulation_of("yolov5", tmp_path)
    blind = dataclasses.replace(simulation, samples=[])
    decision = decided(blind, openvino, 20.0)
    assert decision.sensitivity is None
    assert decision.placement == plan_placement(simulation.graph)
