"""A large detector is executed on fewer images in every stage."""

import onnx

from quantizer.model.graph import Graph
from quantizer.sensitivity.image_counts import ImageCounts
from tests.tiny_models import TINY


def test_a_large_detector_is_executed_on_fewer_images():
    small = onnx.shape_inference.infer_shapes(TINY["yolov5"]())
    assert ImageCounts.of(Graph.of(small)) == ImageCounts()
    large = onnx.ModelProto()
    large.CopyFrom(small)
    stem = next(node for node in large.graph.node if node.op_type == "Conv")
    described = next(each for each in large.graph.value_info if each.name == stem.output[0])
    described.type.tensor_type.shape.dim[2].dim_value = 10**8
    counts = ImageCounts.of(Graph.of(large))
    assert 0 < counts.calibrated < 100
    assert all(few < many for few, many in zip(counts[1:], ImageCounts()[1:], strict=True))
