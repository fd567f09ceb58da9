import numpy as np
import onnx
import pytest
from onnx import shape_inference

from quantizer.model.graph import Graph, attributes
from quantizer.model.stem import without_focus
from tests.quantizer.graphs import by_onnxruntime, images
from tests.tiny_models import SIZE, Sketch

CORNERS = {
    "yolov5": [(0, 0), (1, 0), (0, 1), (1, 1)],
    "rows first": [(0, 0), (0, 1), (1, 0), (1, 1)],
}


def sliced(s: Sketch, corners: list[tuple[int, int]]) -> str:
    parts = []
    for index, (row, column) in enumerate(corners):
        rows = s.take(f"rows{index}", "images", row, 10_000, 2, 2)
        parts.append(s.take(f"corner{index}", rows, column, 10_000, 3, 2))
    return s.concat("focus", *parts)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("kind", [*CORNERS, "SpaceToDepth"])
def test_focus_and_its_convolution_become_one_strided_convolution(kind, kernel):
    s = Sketch()
    if kind in CORNERS:
        moved = sliced(s, CORNERS[kind])
    else:
        moved = s.node("SpaceToDepth", "focus", "images", blocksize=2)
    made = s.conv_silu("stem", moved, (12, 8), kernel)
    model = with_shapes(s.model(s.conv("next", made, (8, 8), 3, 2), rank=4))
    folded = without_focus(model)
    onnx.checker.check_model(folded, full_check=True)
    first = next(node for node in folded.graph.node if node.op_type == "Conv")
    assert first.input[0] == "images"
    assert (attributes(first, "strides"), attributes(first, "kernel_shape")) == (
        (2, 2),
        (2 * kernel, 2 * kernel),
    )
    assert {node.op_type for node in folded.graph.node} == {"Conv", "Sigmoid", "Mul"}
    image = images(1)[0]
    np.testing.assert_allclose(
        by_onnxruntime(folded, image), by_onnxruntime(model, image), rtol=1e-4, atol=1e-5
    )


def test_operators_that_do_more_than_move_pixels_stay():
    s = Sketch()
    smaller = s.node("AveragePool", "pool", "images", kernel_shape=[2, 2], strides=[2, 2])
    model = with_shapes(s.model(s.conv("stem", smaller, (3, 8), 3), rank=4))
    assert list(without_focus(model).graph.node) == list(model.graph.node)


def test_a_crop_stays():
    s = Sketch()
    part = s.take("crop", "images", 0, SIZE // 2, 2)
    model = with_shapes(s.model(s.conv("stem", part, (3, 8), 3), rank=4))
    assert list(without_focus(model).graph.node) == list(model.graph.node)


def test_a_stem_that_reads_the_image_stays():
    s = Sketch()
    model = with_shapes(s.model(s.conv("stem", "images", (3, 8), 3, 2), rank=4))
    folded = without_focus(model)
    assert list(folded.graph.node) == list(model.graph.node)
    assert Graph.of(folded).input == "images"
