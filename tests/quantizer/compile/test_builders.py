"""The interface of a builder, on every runtime; then what is specific to one runtime."""

import numpy as np
import onnx
import pytest

from quantizer.compile.builder import Candidate
from quantizer.compile.load import load_builder
from quantizer.errors import BuildFailed
from quantizer.int8 import Range, Scheme, activation_params
from quantizer.model.graph import Graph
from quantizer.qdq.insertion import insert_qdq
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.weights import Weights
from tests.quantizer.graphs import HERE, by_onnxruntime, graph_of, quantized, served
from tests.shared import needs_int8
from tests.tiny_models import SIZE, TINY, Sketch

RUNTIMES = ("openvino", "onnxruntime")
IMAGE = np.random.default_rng(3).random((1, 3, SIZE, SIZE), np.float32)


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    return request.param


schemes = pytest.mark.parametrize(
    "scheme", [Scheme(), Scheme(symmetric=True)], ids=["plain", "symmetric"]
)


def with_ranges(graph: Graph, bounds: Range, scheme: Scheme) -> onnx.ModelProto:
    """The Q/DQ graph in which all activations have these bounds."""
    placement = plan_placement(graph)
    params = dict.fromkeys(placement.tensors, activation_params(bounds, scheme))
    return insert_qdq(graph, placement, params, Weights(graph, HERE.weight_scheme))


@pytest.mark.parametrize("name", TINY)
def test_the_engine_computes_the_float_graph(name, runtime, tmp_path):
    graph = graph_of(name)
    built = load_builder(runtime, 1).build(Candidate("fp32", graph.model), tmp_path)
    expected = by_onnxruntime(graph.model, IMAGE, optimised=False)
    np.testing.assert_allclose(
        served(built.variant, tmp_path, IMAGE), expected, rtol=1e-3, atol=1e-2
    )


@schemes
def test_the_engine_computes_the_quantized_graph(scheme, runtime, tmp_path):
    model = quantized(graph_of("yolov5"), scheme)
    built = load_builder(runtime, 1).build(Candidate("int8", model), tmp_path)
    expected = by_onnxruntime(model, IMAGE, optimised=False)
    allowed = 0.02 * np.abs(expected).max()
    np.testing.assert_allclose(
        served(built.variant, tmp_path, IMAGE), expected, rtol=0, atol=allowed
    )


def test_a_float_engine_lies_in_its_variants_folder_and_executes_in_float(runtime, tmp_path):
    graph = graph_of("yolov5")
    built = load_builder(runtime, 1).build(Candidate("fp32", graph.model), tmp_path)
    files = [path for path in (tmp_path / "fp32").iterdir() if path.is_file()]
    assert built.bytes == sum(path.stat().st_size for path in files)
    assert built.variant.model.startswith("fp32/")
    assert (tmp_path / built.variant.model).is_file()
    assert (built.variant.runtime, built.variant.precision) == (runtime, "fp32")
    convs = {node.name for node in graph.nodes if node.op_type == "Conv"}
    assert {built.executed.get(name) for name in convs} == {"f32"}


def test_an_operator_that_the_runtime_does_not_know_fails_in_one_line(runtime, tmp_path):
    model = TINY["relu"]()
    model.graph.node[1].op_type = "Frobnicate"
    with pytest.raises(BuildFailed, match="int8 graph") as caught:
        load_builder(runtime, 1).build(Candidate("int8", model), tmp_path)
    assert "\n" not in str(caught.value)


@needs_int8
@schemes
@pytest.mark.parametrize("name", TINY)
def test_openvino_executes_every_planned_convolution_in_int8(name, scheme, tmp_path):
    graph = graph_of(name)
    candidate = Candidate("int8", quantized(graph, scheme))
    executed = load_builder("openvino", 1).build(candidate, tmp_path).executed
    placement = plan_placement(graph)
    # OpenVINO does not execute the rearrangement of YOLOX's Focus in int8.
    layers = set(placement.layers) - ({"stem"} if name == "yolox" else set())
    assert {executed.get(layer) for layer in layers} <= {"u8", "i8"}
    floats = {executed.get(kept.layer) for kept in placement.kept_float}
    assert floats <= {"f32"}


@needs_int8
def test_openvino_tells_the_precision_of_each_convolution():
    graph = graph_of("yolov5")
    builder = load_builder("openvino", 1)
    before, after = builder.executed(graph.model), builder.executed(quantized(graph, Scheme()))
    layers = plan_placement(graph).layers
    assert {before[layer] for layer in layers} == {builder.low_float or "f32"}
    assert {after[layer] for layer in layers} <= {"u8", "i8"}


def test_onnxruntime_tells_no_precisions_of_a_graph_that_is_not_built():
    assert load_builder("onnxruntime", 1).executed(TINY["relu"]()) == {}


def test_an_operator_that_openvino_does_not_know_is_a_failure_of_the_build():
    model = TINY["relu"]()
    model.graph.node[1].op_type = "Frobnicate"
    with pytest.raises(BuildFailed, match="compile"):
        load_builder("openvino", 1).executed(model)


def test_symmetric_activations_survive_a_concat_in_openvino(tmp_path):
    """OpenVINO 2026.4 alone loses the zero point of int8 there."""
    s = Sketch()
    both = s.concat("cat", *(s.conv_silu(name, "images", (3, 16)) for name in "ab"))
    out = s.conv("last", s.conv_silu("c", both, (32, 8)), (8, 8))
    graph = Graph.of(s.model(out, rank=4))
    model = with_ranges(graph, Range(-0.2785, 4), Scheme(symmetric=True))
    before = model.SerializeToString()
    built = load_builder("openvino", 1).build(Candidate("int8", model), tmp_path)
    expected = by_onnxruntime(model, IMAGE, optimised=False)
    assert (
        np.abs(served(built.variant, tmp_path, IMAGE) - expected).max()
        < 0.02 * np.abs(expected).max()
    )
    assert model.SerializeToString() == before


def test_onnxruntime_lists_the_convolutions_that_became_integer_kernels(tmp_path):
    """One becomes an integer kernel only where Q/DQ directly follows it."""
    s = Sketch()
    x = s.conv("b", s.conv("a", "images", (3, 8)), (8, 8))
    graph = Graph.of(s.model(s.conv("last", x, (8, 8)), rank=4))
    model = with_ranges(graph, Range(-3, 3), Scheme())
    executed = load_builder("onnxruntime", 1).build(Candidate("int8", model), tmp_path).executed
    assert executed["a"] == "u8"
    assert executed["last"] == "f32"


def test_openvino_writes_a_blob_that_fits_this_machine(tmp_path):
    graph = graph_of("relu")
    variant = load_builder("openvino", 1).build(Candidate("fp32", graph.model), tmp_path).variant
    assert variant.blob is not None
    (tmp_path / variant.model).unlink()  # so that only the blob is left
    assert served(variant, tmp_path, np.zeros((1, SIZE, SIZE, 3), np.uint8)).shape == (1, 7, 84)
