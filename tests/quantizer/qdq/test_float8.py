"""FP8 in place of int8, executed by ONNX Runtime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from quantizer.int8 import Scheme
from quantizer.qdq.emulation import in_float16
from quantizer.qdq.float8 import to_float8
from quantizer.qdq.float16 import to_float16
from quantizer.qdq.format import TENSORRT
from tests.quantizer.graphs import by_onnxruntime, graph_of, images, quantized
from tests.tiny_models import TINY


def converted(name: str) -> tuple[onnx.ModelProto, onnx.ModelProto, onnx.ModelProto]:
    """The float model, in int8 and in FP8."""
    graph = graph_of(name)
    int8 = quantized(graph, Scheme(symmetric=True, half=True), TENSORRT)
    return graph.model, int8, to_float8(int8, graph.model)


def noise(expected: np.ndarray, found: np.ndarray) -> float:
    return float(((expected - found) ** 2).mean() / (expected**2).mean())


@pytest.mark.parametrize(
    "name", [name for name in TINY if name != "end2end"]
)  # its rows are sorted
def test_every_pair_is_in_fp8_and_computes_nearly_what_the_float_model_does(name):
    original, int8, fp8 = converted(name)
    onnx.checker.check_model(to_float16(fp8), full_check=True)
    kinds = {each.name: each.data_type for each in fp8.graph.initializer}
    assert TensorProto.INT8 not in kinds.values()
    before = {each.name for each in int8.graph.initializer if each.data_type == TensorProto.INT8}
    after = {name for name, kind in kinds.items() if kind == TensorProto.FLOAT8E4M3FN}
    assert before == after
    (image,) = images(1)
    expected = by_onnxruntime(original, image)
    # Three bits of mantissa round each value by 2 %; int8 rounds large ones less.
    assert noise(expected, by_onnxruntime(in_float16(to_float16(fp8)), image)) < 0.01


def test_the_largest_value_of_a_range_is_that_of_the_type():
    original, int8, fp8 = converted("yolov5")

    def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
        return {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}

    integers, floats = constants(int8), constants(fp8)
    scales = [name for name in integers if name.endswith("/scale") and integers[name].size == 1]
    assert scales
    for name in scales:
        assert floats[name] * 448 == pytest.approx(integers[name] * 127, rel=1e-3)
        assert floats[name] == floats[name].astype(np.float16)
    weights = [name for name in integers if f"{name}/quantized" in floats]
    for name in weights:
        whole = floats[f"{name}/quantized"].astype(np.float32)
        scale = floats[f"{name}/scale"].reshape(-1, *(1,) * (whole.ndim - 1))
        np.testing.assert_allclose(whole * scale, constants(original)[name], rtol=0.07, atol=1e-3)
