import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, shape_inference

from quantizer.errors import BuildFailed
from quantizer.model.decode_tail import decode_tail
from quantizer.model.graph import Graph
from quantizer.qdq.float16 import to_float16
from tests.quantizer.graphs import by_onnxruntime, graph_of, images
from tests.tiny_models import TINY, Sketch

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def types(model: onnx.ModelProto) -> dict[str, int]:
    """By tensor name, as inferred from the graph's own operators."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    described = [*inferred.value_info, *inferred.input, *inferred.output]
    found = {value.name: value.type.tensor_type.elem_type for value in described}
    return found | {tensor.name: tensor.data_type for tensor in inferred.initializer}


@pytest.mark.parametrize("name", TINY)
def test_convolutions_compute_in_float16_and_the_decode_tail_in_float32(name):
    model = graph_of(name).model
    typed = to_float16(model)
    known = types(typed)
    assert known["images"] == known[typed.graph.output[0].name] == FULL
    tail = {node.output[0] for node in decode_tail(Graph.of(typed))}
    convolutions = [n for n in typed.graph.node if n.op_type == "Conv" and n.output[0] not in tail]
    assert convolutions
    for node in convolutions:
        assert {known[each] for each in (*node.input, *node.output)} == {HALF}, node.name
    for node in typed.graph.node:
        if node.output[0] in tail:
            assert HALF not in {known[each] for each in node.output}, node.name


@pytest.mark.parametrize("name", TINY)
def test_the_outputs_are_close_to_those_in_float32(name):
    model, (image,) = graph_of(name).model, images(1)
    expected = by_onnxruntime(model, image)
    found = by_onnxruntime(to_float16(model), image)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.05)


def test_an_output_without_a_decode_tail_is_float32():
    s = Sketch()
    model = s.model(s.conv("only", "images", (3, 5)), rank=4)
    typed = to_float16(model)
    assert types(typed)["only.y"] == FULL
    assert [node.op_type for node in typed.graph.node] == ["Cast", "Conv", "Cast"]


def test_a_constant_that_body_and_tail_read_has_both_types():
    s = Sketch()
    two = s.constant("two", 2.0, np.float32)
    body = s.node("Mul", "body", s.conv("one", "images", (3, 8)), two)
    raw = s.conv("last", body, (8, 5))
    typed = to_float16(s.model(s.node("Mul", "tail", raw, two), rank=4))
    known = types(typed)
    read = {node.name: node.input[1] for node in typed.graph.node if node.op_type == "Mul"}
    assert (known[read["body"]], known[read["tail"]]) == (HALF, FULL)


def test_weights_beyond_float16_become_its_largest_number():
    s = Sketch()
    model = s.model(s.conv("only", "images", (3, 5)), rank=4)
    (weight,) = (each for each in model.graph.initializer if each.name == "only.weight")
    weight.CopyFrom(numpy_helper.from_array(np.full((5, 3, 1, 1), 1e6, np.float32), weight.name))
    half = {t.name: numpy_helper.to_array(t) for t in to_float16(model).graph.initializer}
    assert half["only.weight/float16"].max() == np.finfo(np.float16).max


def test_an_operator_that_does_not_take_float16_is_an_error():
    s = Sketch()
    boxes, scores = (s.reshape(name, "images", [1, n, -1]) for name, n in (("b", 3072), ("s", 1)))
    kept = s.node("Cast", "cast", s.node("NonMaxSuppression", "nms", boxes, scores), to=FULL)
    model = s.model(s.conv("only", s.reshape("image", kept, [1, 3, 1, -1]), (3, 5)), rank=4)
    with pytest.raises(BuildFailed, match="cannot be written in float16"):
        to_float16(model)
