"""The stem of older YOLOs: Focus and its convolution become one strided convolution.

Focus moves each block of b x b pixels into channels, by slices or SpaceToDepth. A convolution of
what it makes is the same sum as a convolution of the image with a kernel and a stride b times as
large, which needs no copy of the image.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from quantizer.model.execution import open_session
from quantizer.model.graph import PASS_THROUGH_OPS, Graph, attribute, attributes, drop_unread


def without_focus(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the convolutions that read rearranged pixels read the image; exact."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph.of(copy)
    for node in graph.nodes:
        if node.op_type == "Conv" and node.input[0] != graph.input and _reads_pixels(graph, node):
            pixels = _pixels_of(graph, node.input[0])
            if pixels is not None:
                _read_image(copy, graph, node, pixels)
    drop_unread(copy)
    return copy


def _reads_pixels(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether only operators that move values stand between the image and a dense convolution."""
    waiting = [node.input[0]]
    while waiting:
        name = waiting.pop()
        producer = graph.producer.get(name)
        if producer is None:
            if name != graph.input:
                return False
        elif producer.op_type not in PASS_THROUGH_OPS - {"MaxPool", "Resize"}:
            return False
        else:
            waiting += graph.activations_of(producer)
    dense = attribute(node, "group", 1) == 1 and graph.is_constant(node.input[1])
    return dense and set(attributes(node, "dilations")) <= {1}


def _pixels_of(graph: Graph, tensor: str) -> NDArray[np.int64] | None:
    """i64[K,3]: channel, row and column in its block of the pixel that each channel holds.

    Found by executing the operators on an image whose pixels are numbered; None where a channel is
    not one pixel of every block.
    """
    shape = graph.shapes[graph.input]
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    if image.size > 1 << 24:  # float32 cannot number more
        return None
    (moved,) = open_session(graph.with_outputs([tensor]), 1).run(None, {graph.input: image})
    if moved.ndim != 4 or shape[2] % moved.shape[2]:
        return None
    block = shape[2] // moved.shape[2]
    first = moved[0, :, 0, 0].astype(np.int64)
    pixels = np.stack(np.unravel_index(first, shape[1:]), axis=1)
    for values, (channel, row, column) in zip(moved[0], pixels, strict=True):
        if not np.array_equal(values, image[0, channel, row::block, column::block]):
            return None
    return pixels


def _read_image(
    model: onnx.ModelProto, graph: Graph, node: onnx.NodeProto, pixels: NDArray[np.int64]
) -> None:
    """Let a convolution read the image, with a kernel in which each weight meets its pixel."""
    weight = graph.constant(node.input[1])
    block = graph.shapes[graph.input][2] // graph.shapes[node.input[0]][2]
    outputs, _, height, width = weight.shape
    spread = np.zeros((outputs, 3, height * block, width * block), weight.dtype)
    for index, (channel, row, column) in enumerate(pixels):
        spread[:, channel, row::block, column::block] += weight[:, index]
    name = f"{node.input[1]}/strided"
    model.graph.initializer.append(numpy_helper.from_array(spread, name))
    node.input[0], node.input[1] = graph.input, name
    larger = {
        "kernel_shape": list(spread.shape[2:]),
        "strides": [block * each for each in attributes(node, "strides") or (1, 1)],
        "pads": [block * each for each in attributes(node, "pads") or (0, 0, 0, 0)],
    }
    kept = [attr for attr in node.attribute if attr.name not in larger]
    node.ClearField("attribute")
    node.attribute.extend([*kept, *(helper.make_attribute(*each) for each in larger.items())])
