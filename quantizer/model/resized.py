"""A detector that was exported for one size -> the same for another.

Convolutions take any size, but the decode tail of such an export holds the grid of its own. Where
the maps before it are recognised, it can be written anew for the grid of another size.
"""

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from quantizer.model.execution import open_session
from quantizer.model.graph import Graph, drop_unread
from quantizer.model.map_layout import Maps
from service.vision.heads import HeadName, grid_of
from service.vision.input_size import InputSize
from service.vision.maps import Level, MapLayout, Part

# Those of an undecoded head need no grid; an end-to-end head also selects boxes.
HEADS: Final[tuple[HeadName, ...]] = ("yolov5", "yolov8", "yolonas")


def resized(graph: Graph, head: HeadName, maps: Maps, size: InputSize) -> Graph | Exception:
    """A copy that reads f32[1,3,height,width] of this size, or why there is none."""
    if head not in HEADS:
        return ValueError(f"the decode of the head {head} is not written anew")
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.value_info[:], model.graph.input[:], model.graph.output[:]
    shape = [1, 3, size.height, size.width]
    image = helper.make_tensor_value_info(graph.input, TensorProto.FLOAT, shape)
    output = helper.make_tensor_value_info(graph.outputs[0], TensorProto.FLOAT, None)
    model.graph.input.append(image)
    model.graph.output.append(output)
    for node in model.graph.node:
        node.output[:] = [
            f"{name}/exported" if name == output.name else name for name in node.output
        ]
    _Tail(model.graph, maps, size).write(head, output.name)
    drop_unread(model)
    try:
        model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        open_session(model, 1).run(None, {graph.input: np.zeros(shape, np.float32)})
    except Exception as exc:  # onnx and ONNX Runtime raise many types, all about this graph
        return exc
    return Graph.of(model)


class _Tail:
    """Appends a decode tail to a graph: the rows of a level are those of its first anchor first."""

    def __init__(self, graph: onnx.GraphProto, maps: Maps, size: InputSize) -> None:
        self._graph, self._maps, self._layout, self._size = graph, maps, maps.layout, size

    def write(self, head: HeadName, output: str) -> None:
        levels = [self._rows(head, level) for level in self._layout.levels]
        if head != "yolov8":
            self._node("Concat", levels, output, axis=1)
        else:
            rows = self._node("Concat", levels, axis=1)
            self._node("Transpose", [rows], output, perm=[0, 2, 1])

    def _rows(self, head: HeadName, level: Level) -> str:
        """f32[1,N,columns]: the box, the objectness where the head has one, and the classes."""
        code, stride = self._layout.code, np.float32(level.stride)
        cells = np.tile(grid_of(self._size, level.stride), (max(1, len(level.anchors)), 1))[None]
        bins = max(1, len(self._layout.bins))
        first, second = self._halves(self._part(level, level.box, 4 * bins), self._layout)
        if code == "distances":
            points = self._constant((cells + np.float32(0.5)) * stride)
            before, after = (self._by("Mul", each, stride) for each in (first, second))
            corners = self._node("Sub", [points, before]), self._node("Add", [points, after])
            box = [*corners] if head == "yolonas" else self._centre_and_extent(*corners)
        elif code == "anchors":
            first, second = (self._node("Sigmoid", [each]) for each in (first, second))
            offset = self._by("Mul", first, 2 * stride)
            anchors = np.repeat(
                np.array(level.anchors, np.float32), cells.shape[1] // len(level.anchors), axis=0
            )
            squared = self._node("Mul", [second, second])
            box = [
                self._by("Add", offset, (cells - np.float32(0.5)) * stride),
                self._by("Mul", squared, 4 * anchors[None]),
            ]
        else:
            offset = self._by("Mul", first, stride)
            box = [
                self._by("Add", offset, cells * stride),
                self._by("Mul", self._node("Exp", [second]), stride),
            ]
        columns = [*box]
        if level.objectness is not None:
            columns.append(self._node("Sigmoid", [self._part(level, level.objectness, 1)]))
        elif head == "yolov5":
            columns.append(self._constant(np.ones((1, cells.shape[1], 1), np.float32)))
        classes = self._part(level, level.classes, self._layout.class_count)
        return self._node("Concat", [*columns, self._node("Sigmoid", [classes])], axis=2)

    def _part(self, level: Level, part: Part, count: int) -> str:
        """f32[1,N,count] of a map [1,C,H,W]."""
        anchors = max(1, len(level.anchors))
        channels = self._maps.shapes[part.map][1] // anchors
        by_anchor = self._constant(np.array([1, anchors, channels, -1]))
        split = self._node("Reshape", [self._maps.tensors[part.map], by_anchor])
        last = self._node("Transpose", [split], perm=[0, 1, 3, 2])
        rows = self._node("Reshape", [last, self._constant(np.array([1, -1, channels]))])
        return rows if count == channels else self._slice(rows, part.channel, part.channel + count)

    def _halves(self, box: str, layout: MapLayout) -> tuple[str, str]:
        """The first two and the last two numbers of a box; of DFL the means of its bins."""
        if layout.bins:
            shape = self._constant(np.array([1, -1, 4, len(layout.bins)]))
            shares = self._node("Softmax", [self._node("Reshape", [box, shape])], axis=3)
            weighted = self._by("Mul", shares, np.array(layout.bins, np.float32))
            axis = self._constant(np.array([3]))
            box = self._node("ReduceSum", [weighted, axis], keepdims=0)
        return self._slice(box, 0, 2), self._slice(box, 2, 4)

    def _centre_and_extent(self, least: str, most: str) -> list[str]:
        centre = self._by("Mul", self._node("Add", [least, most]), np.float32(0.5))
        return [centre, self._node("Sub", [most, least])]

    def _slice(self, rows: str, start: int, end: int) -> str:
        bounds = [self._constant(np.array([value])) for value in (start, end, 2)]
        return self._node("Slice", [rows, *bounds])

    def _by(self, kind: str, tensor: str, constant: Any) -> str:
        return self._node(kind, [tensor, self._constant(np.asarray(constant, np.float32))])

    def _node(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        made = name or f"resized/{kind.lower()}{len(self._graph.node)}"
        self._graph.node.append(helper.make_node(kind, inputs, [made], made, **attributes))
        return made

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"resized/constant{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name
