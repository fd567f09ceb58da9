from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from quantizer.compile.builder import Candidate
from quantizer.compile.openvino_builder import OpenVinoBuilder
from quantizer.int8 import (
    QuantParams,
    Range,
    Scheme,
    activation_params,
    dequantize_array,
    quantize_array,
    weight_params,
)
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from quantizer.qdq.format import PLAIN, QdqFormat
from quantizer.qdq.insertion import insert_qdq
from quantizer.qdq.placement import ActivationSite, KeptFloat, Placement, WeightSite, plan_placement
from quantizer.qdq.weights import Weights
from tests.quantizer.graphs import HERE, by_onnxruntime, graph_of, images, quantized, served
from tests.tiny_models import INPUT, TINY, Sketch, relu

SCHEMES = {"asymmetric": Scheme(), "symmetric": Scheme(symmetric=True)}
schemes = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)


def by_openvino(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    """As it is compiled and served."""
    with TemporaryDirectory() as folder:
        built = OpenVinoBuilder(1).build(Candidate("int8", model), Path(folder))
        return served(built.variant, Path(folder), image)


def one_conv(scheme: Scheme) -> tuple[Graph, Placement, dict[str, QuantParams]]:
    """images -> conv -> Relu, with Q/DQ on the image and on the convolution's output."""
    s = Sketch()
    made = s.conv("conv", "images", (3, 16), 3, 2)
    graph = Graph.of(s.model(s.node("Relu", "act", made), rank=4))
    placement = Placement(
        (ActivationSite("images", "images"), ActivationSite("conv.y", "conv.y")),
        (WeightSite("conv", "conv.weight"),),
        (),
    )
    params = {
        "images": activation_params(Range(0, 1), scheme),
        "conv.y": activation_params(Range(-2, 2.5), scheme),
    }
    return graph, placement, params


def integer_convolution(
    graph: Graph, params: dict[str, QuantParams], image: np.ndarray
) -> np.ndarray:
    """The definition of one_conv: integer products and sums, one scale for each channel."""
    weight, bias = graph.constant("conv.weight"), graph.constant("conv.bias")
    weights = weight_params(weight, 0, HERE.weight_scheme)
    x = quantize_array(image, params["images"]).astype(np.int64)
    x = np.pad(x - int(params["images"].zero_point), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    steps = quantize_array(weight, weights).astype(np.int64)
    sums = np.einsum("ncyxij,ocij->noyx", windows, steps)
    scale = (params["images"].scale * weights.scale).reshape(1, -1, 1, 1)
    real = (sums * scale + bias.reshape(1, -1, 1, 1)).astype(np.float32)
    rounded = dequantize_array(quantize_array(real, params["conv.y"]), params["conv.y"])
    return np.maximum(rounded, 0)


@schemes
@pytest.mark.parametrize("run", [by_onnxruntime, by_openvino], ids=["onnxruntime", "openvino"])
def test_a_runtime_computes_integer_arithmetic(run, scheme):
    graph, placement, params = one_conv(scheme)
    model = insert_qdq(graph, placement, params, Weights(graph, HERE.weight_scheme))
    (image,) = images(1)
    expected = integer_convolution(graph, params, image)
    difference = np.abs(run(model, image) - expected)
    step = float(params["conv.y"].scale)
    assert np.unique(expected).size > 50
    assert difference.max() <= step * 1.001  # a tie may round either way
    assert (difference > step / 2).mean() < 0.01


@schemes
@pytest.mark.parametrize("name", TINY)
def test_the_graph_is_valid_and_both_runtimes_agree_on_it(name, scheme):
    graph = graph_of(name)
    model = quantized(graph, scheme)
    onnx.checker.check_model(model, full_check=True)
    image = images(1)[0]
    answers = [
        by_onnxruntime(model, image, optimised=False),
        by_onnxruntime(model, image),
        by_openvino(model, image),
    ]
    if name == "end2end":  # near ties swap rows: the scores alone are in order
        answers = [answer[..., 4] for answer in answers]
    plain, fused, fast = answers
    allowed = 0.02 * np.abs(plain).max()
    np.testing.assert_allclose(fused, plain, rtol=0, atol=allowed)
    np.testing.assert_allclose(fast, plain, rtol=0, atol=allowed)


def test_the_numpy_operators_of_onnx_agree_too(tmp_path):
    onnx.save(relu(opset=19), tmp_path / "relu.onnx")  # the first opset in which they know Q/DQ
    graph = read_float_model(tmp_path / "relu.onnx", INPUT).graph
    model = quantized(graph, Scheme())
    image = images(1)[0]
    expected = ReferenceEvaluator(model).run(None, {"images": image})[0]
    allowed = 0.02 * np.abs(expected).max()
    np.testing.assert_allclose(by_onnxruntime(model, image), expected, rtol=0, atol=allowed)
    np.testing.assert_allclose(by_openvino(model, image), expected, rtol=0, atol=allowed)


@schemes
@pytest.mark.parametrize("name", ["yolov5", "yolox", "yolov8", "relu"])
def test_the_quantized_model_is_close_to_the_float_one(name, scheme):
    graph = graph_of(name)
    image = images(1)[0]
    exact = by_onnxruntime(graph.model, image)
    error = by_onnxruntime(quantized(graph, scheme), image) - exact
    assert np.abs(error).max() > 0
    assert np.sqrt(np.square(error).mean()) < 0.1 * exact.std()


@pytest.mark.parametrize("name", TINY)
def test_the_input_graph_does_not_change_and_the_interface_is_kept(name):
    graph = graph_of(name)
    before = graph.model.SerializeToString()
    model = quantized(graph, Scheme())
    assert graph.model.SerializeToString() == before
    assert list(model.graph.input) == list(graph.model.graph.input)
    assert list(model.graph.output) == list(graph.model.graph.output)
    assert list(model.metadata_props) == list(graph.model.metadata_props)


@schemes
def test_weights_are_int8_with_a_scale_for_each_output_channel(scheme):
    graph = graph_of("yolov5")
    model = quantized(graph, scheme)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = {node.output[0]: node for node in model.graph.node if node.op_type[:2] == "De"}
    for site in plan_placement(graph).weights:
        conv = next(node for node in model.graph.node if node.name == site.layer)
        dequantize = pairs[conv.input[1]]
        steps, scale, zero = (numpy_helper.to_array(constants[name]) for name in dequantize.input)
        assert (steps.dtype, zero.dtype, zero.any()) == (np.int8, np.int8, np.False_)
        assert scale.shape == zero.shape == steps.shape[:1]
        assert [(attr.name, attr.i) for attr in dequantize.attribute] == [("axis", 0)]
        assert site.tensor not in constants


@pytest.mark.parametrize(("scheme", "kind"), [(Scheme(), np.uint8), (Scheme(True), np.int8)])
def test_activations_have_one_scale_and_the_schemes_zero_point(scheme, kind):
    graph = graph_of("yolov5")
    model = quantized(graph, scheme)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert tuple(node.input[0] for node in found) == plan_placement(graph).tensors
    for node in found:
        scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
        assert (scale.shape, zero.shape, zero.dtype) == ((), (), kind)
        assert kind is np.uint8 or zero == 0


def test_every_reader_of_a_quantized_tensor_reads_the_rounded_values():
    graph = graph_of("yolov5")
    model = quantized(graph, Scheme())
    sites = set(plan_placement(graph).tensors)
    readers = {node.op_type for node in model.graph.node if sites & set(node.input)}
    assert readers == {"QuantizeLinear"}


def test_a_weight_that_a_float_convolution_shares_stays_float_for_it():
    s = Sketch()
    first = s.silu("a", s.conv("a", "images", (3, 3), 3))
    second = s.node("Conv", "b", first, "a.weight", pads=[1] * 4)
    graph = Graph.of(s.model(second, rank=4))
    placement = Placement(
        (ActivationSite("images", "images"),),
        (WeightSite("a", "a.weight"),),
        (KeptFloat("b", "for the test"),),
    )
    params = {"images": activation_params(Range(0, 1), Scheme())}
    model = insert_qdq(graph, placement, params, Weights(graph))
    readers = {node.name: node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    assert readers["b"] == "a.weight"
    assert readers["a"] != "a.weight"
    onnx.checker.check_model(model, full_check=True)


def test_a_quantized_tensor_that_is_an_output_stays_an_output():
    s = Sketch()
    x = s.conv_silu("a", "images", (3, 4))
    graph = Graph.of(s.model(x, s.conv("b", x, (4, 4)), rank=4))
    placement = Placement((ActivationSite(x, x),), (WeightSite("b", "b.weight"),), ())
    model = insert_qdq(
        graph, placement, {x: activation_params(Range(-0.3, 3), Scheme())}, Weights(graph)
    )
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == list(graph.outputs)


def test_an_empty_plan_changes_nothing():
    graph = graph_of("relu")
    model = insert_qdq(graph, Placement((), (), ()), {}, Weights(graph))
    assert list(model.graph.node) == list(graph.model.graph.node)


@pytest.mark.parametrize("name", TINY)
def test_propagated_qdq_changes_no_value(name):
    graph = graph_of(name)
    scheme = Scheme(symmetric=True)
    formats = (PLAIN, QdqFormat(explicit=True))
    plain, explicit = (quantized(graph, scheme, qdq_format) for qdq_format in formats)
    for image in images(2):
        np.testing.assert_array_equal(
            by_onnxruntime(plain, image, optimised=False),
            by_onnxruntime(explicit, image, optimised=False),
        )
