"""Leave the classes of anchors to the server, which needs those of few.

The last convolutions of YOLOv5 and 7 compute the classes of three anchors in every cell, two
million numbers, of which the server reads those of the anchors whose objectness can pass: a few
dozen. So the graph keeps the boxes and the objectness, and returns what the convolution reads,
which in a quantized model are bytes; the server multiplies the rows of these anchors by the graph's
weights.

Other heads keep their last convolutions. One anchor in a cell, as YOLOX has it, has too few classes
to gain by that, and without objectness the classes themselves tell which anchors can pass.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, NamedTuple, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, shape_inference

from quantizer.model.graph import (
    Graph,
    attribute,
    attributes,
    constant_weight,
    drop_unread,
    layer_name,
)
from quantizer.model.map_layout import Maps
from quantizer.model.serving_graph import return_channels_last
from service.vision.maps import Level, MapLayout, Part
from service.vision.projections import Projection, Projections

BYTES_PER_VALUE: Final = 4  # of a map's; a feature is one byte in a quantized model

Doubles = NDArray[np.float64]


class Ended(NamedTuple):
    """A graph that ends at what the server reads, and the convolutions that it leaves to it."""

    model: onnx.ModelProto
    projections: Projections = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Map:
    """One of the maps: the channels that the graph computes, and those that it leaves out."""

    tensor: str
    anchors: int
    kept: tuple[int, ...]
    left: tuple[int, ...] = ()

    @classmethod
    def of(cls, graph: Graph, maps: Maps, index: int) -> Self:
        tensor, channels = maps.tensors[index], maps.shapes[index][1]
        for level in maps.layout.levels:
            anchors, first = len(level.anchors), level.classes.channel
            size = channels // max(1, anchors)
            last = first + maps.layout.class_count == size
            if anchors and level.classes.map == index and last:
                outputs = anchors * maps.layout.class_count
                if _is_pointwise(graph, graph.producer[tensor], outputs):
                    cells = np.arange(channels).reshape(anchors, size)
                    kept, left = cells[:, :first], cells[:, first:]
                    return cls(tensor, anchors, tuple(kept.ravel()), tuple(left.ravel()))
        return cls(tensor, 1, tuple(range(channels)))


def projected_layout(graph: Graph, maps: Maps) -> MapLayout:
    """How the outputs of `ended_before` are read; of the float graph or the Q/DQ graph."""
    features = _feature_outputs(_maps_of(graph, maps))

    def level_of(level: Level) -> Level:
        if level.classes.map not in features:
            return level
        return replace(level, classes=Part(features[level.classes.map], projected=True))

    return replace(maps.layout, levels=tuple(map(level_of, maps.layout.levels)))


def ended_before(model: onnx.ModelProto, maps: Maps) -> Ended:
    """A copy that returns what is left of each map, then the features, channels last."""
    graph, copy = Graph.of(model), deepcopy(model)
    split = _maps_of(graph, maps)
    copy.graph.ClearField("output")
    nodes = {name: node for node in copy.graph.node for name in node.output}
    for each in split:
        if each.left:
            _keep(copy, graph, nodes[each.tensor], each.kept)
        return_channels_last(copy, each.tensor, f"{each.tensor}/map")
    projections = {}
    for index, output in _feature_outputs(split).items():
        each, node = split[index], graph.producer[split[index].tensor]
        tensor, projections[output] = _projection(graph, node, each)
        kind = TensorProto.FLOAT if tensor == node.input[0] else TensorProto.UINT8
        return_channels_last(copy, tensor, f"{each.tensor}/features", kind)
    drop_unread(copy)
    copy.graph.ClearField("value_info")
    return Ended(shape_inference.infer_shapes(copy, strict_mode=True), projections)


def kept_shares(graph: Graph, maps: Maps) -> dict[str, float]:
    """Of each convolution that is left to the server in part: the share of its outputs that is not.

    The keys are the names of the layers.
    """
    return {
        layer_name(graph.producer[each.tensor]): len(each.kept) / (len(each.kept) + len(each.left))
        for each in _maps_of(graph, maps)
        if each.left
    }


def _is_pointwise(graph: Graph, node: onnx.NodeProto, outputs: int) -> bool:
    """Whether it is a 1x1 convolution whose features are not larger than these outputs."""
    if node.op_type != "Conv" or attribute(node, "group", 1) != 1:
        return False
    weight = constant_weight(graph, node)
    if weight is None:
        return False
    _, features, *kernel = graph.constants[weight].dims
    if kernel != [1, 1] or features > BYTES_PER_VALUE * outputs:
        return False
    return set(attributes(node, "strides")) <= {1} and not any(attributes(node, "pads"))


def _maps_of(graph: Graph, maps: Maps) -> list[_Map]:
    return [_Map.of(graph, maps, index) for index in range(len(maps.tensors))]


def _feature_outputs(split: Sequence[_Map]) -> Mapping[int, int]:
    """By the index of a map: that of the output which holds its features, after all maps."""
    left = [index for index, each in enumerate(split) if each.left]
    return {index: output for output, index in enumerate(left, start=len(split))}


def _projection(graph: Graph, node: onnx.NodeProto, split: _Map) -> tuple[str, Projection]:
    """The tensor to return, and the convolution of the channels that are left out."""
    weight, bias = _weight(graph, node), _bias(graph, node)
    left = list(split.left)
    rows, offsets = weight[left, :, 0, 0], bias[left]
    tensor, reader = node.input[0], graph.producer.get(node.input[0])
    if reader is not None and reader.op_type == "DequantizeLinear":
        scale, zero = (graph.constant(name) for name in reader.input[1:3])
        if zero.dtype == np.uint8 and zero.size == 1:
            tensor = reader.input[0]
            rows = rows * float(scale.item())
            offsets = offsets - rows.sum(axis=1) * int(zero.item())
    by_anchor = rows.reshape(split.anchors, -1, rows.shape[1]).transpose(0, 2, 1)
    projection = Projection(
        np.ascontiguousarray(by_anchor, np.float32),
        offsets.reshape(split.anchors, -1).astype(np.float32),
    )
    return tensor, projection


def _keep(
    model: onnx.ModelProto, graph: Graph, node: onnx.NodeProto, channels: Sequence[int]
) -> None:
    """Let a convolution of the copy compute these channels only."""

    def taken(name: str) -> str:
        values = graph.constant(name)[list(channels)]
        model.graph.initializer.append(numpy_helper.from_array(values, f"{name}/kept"))
        return f"{name}/kept"

    reader = graph.producer.get(node.input[1])
    if reader is None:
        node.input[1] = taken(node.input[1])
    else:
        smaller = onnx.NodeProto()
        smaller.CopyFrom(reader)
        smaller.name = f"{reader.name}/kept"
        smaller.input[:] = [taken(name) for name in reader.input]
        smaller.output[0] = node.input[1] = f"{reader.output[0]}/kept"
        model.graph.node.insert(0, smaller)
    if len(node.input) > 2:
        node.input[2] = taken(node.input[2])


def _weight(graph: Graph, node: onnx.NodeProto) -> Doubles:
    """f64[O,F,h,w] of a constant weight, of int8 what it stands for."""
    reader = graph.producer.get(node.input[1])
    if reader is None:
        return graph.constant(node.input[1]).astype(np.float64)
    steps, scale, zero = (graph.constant(name).astype(np.float64) for name in reader.input)
    each = (-1, *(1 for _ in steps.shape[1:]))
    return (steps - zero.reshape(each)) * scale.reshape(each)


def _bias(graph: Graph, node: onnx.NodeProto) -> Doubles:
    if len(node.input) > 2:
        return graph.constant(node.input[2]).astype(np.float64)
    return np.zeros(graph.shapes[node.output[0]][1])
