"""The serving graph against the graph it is made of, float and quantized, in both CPU runtimes."""

import numpy as np
import onnx
import openvino as ov
import pytest

from quantizer.int8 import Scheme
from quantizer.model.execution import open_session
from quantizer.model.map_layout import Maps, recognise_maps
from quantizer.model.serving_graph import ended_at, reading_bytes
from service.vision.preprocess import PREPROCESS, Preprocess, tensor_of
from tests.quantizer.graphs import graph_of, quantized
from tests.tiny_models import INPUT, SIZE, TINY

FAMILIES = {"yolov5": "yolo", "yolox": "yolox", "yolov8": "yolo", "end2end": "yolo"}
families = pytest.mark.parametrize("name", FAMILIES)


def canvas(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)


def maps_of(name: str) -> Maps:
    maps = recognise_maps(graph_of(name), name, INPUT)
    assert isinstance(maps, Maps)
    return maps


def run(model: onnx.ModelProto, value: np.ndarray) -> list[np.ndarray]:
    session = open_session(model, 1)
    return session.run(None, {session.get_inputs()[0].name: value})


def by_openvino(model: onnx.ModelProto, value: np.ndarray) -> list[np.ndarray]:
    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return [np.array(each) for each in compiled(value).to_tuple()]


def integer_model(name: str, how: Preprocess) -> onnx.ModelProto:
    """The Q/DQ graph in which each byte of the image is a step."""
    model = quantized(graph_of(name), Scheme())
    for tensor in model.graph.initializer:
        if tensor.name == "images/scale":
            scale = np.array(1 / how.divisor, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(scale, tensor.name))
        if tensor.name == "images/zero_point":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(0, np.uint8), tensor.name))
    return model


@families
def test_bytes_give_the_maps_that_the_float_image_gives(name):
    how, maps = PREPROCESS[FAMILIES[name]], maps_of(name)
    model = graph_of(name).model
    served = reading_bytes(ended_at(model, maps), how)
    onnx.checker.check_model(served, full_check=True)
    assert len(served.graph.output) == len(maps.tensors)
    expected = run(ended_at(model, maps), tensor_of(canvas(), how))
    for found, wanted in zip(run(served, canvas()), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@families
@pytest.mark.parametrize("bytes_are_steps", [False, True])
def test_the_quantized_graph_computes_the_same(name, bytes_are_steps):
    how, maps = PREPROCESS[FAMILIES[name]], maps_of(name)
    model = integer_model(name, how)
    served = reading_bytes(ended_at(model, maps), how, bytes_are_steps)
    onnx.checker.check_model(served, full_check=True)
    expected = run(ended_at(model, maps), tensor_of(canvas(), how))
    for execute in (run, by_openvino):
        for found, wanted in zip(execute(served, canvas()), expected, strict=True):
            allowed = 0.02 * np.abs(wanted).max()
            np.testing.assert_allclose(found, wanted, rtol=0, atol=allowed)


@families
def test_openvino_computes_the_first_convolution_on_the_bytes(name):
    how = PREPROCESS[FAMILIES[name]]
    served = reading_bytes(ended_at(integer_model(name, how), maps_of(name)), how)
    core = ov.Core()
    compiled = core.compile_model(core.read_model(served.SerializeToString()), "CPU")
    kinds = []
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = operation.get_rt_info()
        kind = info["layerType"].astype(str)
        if kind not in ("Const", "Reshape"):
            kinds.append((kind, info["runtimePrecision"].astype(str)))
    before = kinds[: next(index for index, (kind, _) in enumerate(kinds) if kind == "Convolution")]
    assert {precision for _, precision in before} == {"u8"}
    assert kinds[len(before)] == ("Convolution", "u8")


@families
def test_without_the_float_image_no_operator_reads_floats_before_the_first_convolution(name):
    model = integer_model(name, PREPROCESS[FAMILIES[name]])
    served = reading_bytes(
        ended_at(model, maps_of(name)), PREPROCESS[FAMILIES[name]], bytes_are_steps=True
    )
    kinds = [node.op_type for node in served.graph.node]
    before = kinds[: kinds.index("Conv")]
    assert set(before) <= {"Transpose", "DequantizeLinear"}


@pytest.mark.parametrize("how", PREPROCESS.values(), ids=PREPROCESS)
@pytest.mark.parametrize("name", TINY)
def test_a_graph_that_is_not_cut_returns_its_output(name, how):
    model = graph_of(name).model
    served = reading_bytes(model, how)
    assert [each.name for each in served.graph.output] == [each.name for each in model.graph.output]
    expected = run(model, tensor_of(canvas(), how))[0]
    if name == "end2end":  # near ties swap rows
        expected, found = expected[..., 4], run(served, canvas())[0][..., 4]
    else:
        found = run(served, canvas())[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_given_graph_does_not_change():
    model = integer_model("yolox", PREPROCESS["yolox"])
    before = model.SerializeToString()
    reading_bytes(ended_at(model, maps_of("yolox")), PREPROCESS["yolox"])
    assert model.SerializeToString() == before


def test_a_channel_order_that_no_weight_can_take_is_swapped_in_the_graph():
    """An operator between the image and the first convolution keeps the exporter's order."""
    s_model = graph_of("yolov8").model
    model = onnx.ModelProto()
    model.CopyFrom(s_model)
    offset = onnx.numpy_helper.from_array(
        np.array([0.1, 0.2, 0.3], np.float32).reshape(1, 3, 1, 1), "offset"
    )
    model.graph.initializer.append(offset)
    first = model.graph.node[0]
    first.input[0] = "shifted"
    shift = onnx.helper.make_node("Add", ["images", "offset"], ["shifted"])
    nodes = [shift, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    how = PREPROCESS["yolox"]
    served = reading_bytes(model, how)
    assert "Gather" in {node.op_type for node in served.graph.node}
    expected = run(model, tensor_of(canvas(), how))[0]
    np.testing.assert_allclose(run(served, canvas())[0], expected, rtol=1e-3, atol=1e-3)
