"""The outputs of an export -> the one output that a head's decoder reads.

1. Boxes and scores in two outputs, as YOLO-NAS has them, become the columns of one.
2. Rows that lie across become rows, or columns for a decoder that reads them so.
3. Scores that are logits pass through the sigmoid that the exporter left out.
4. Boxes in fractions of the image become pixels.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from quantizer.errors import UnsupportedModel
from quantizer.model.graph import Graph, drop_unread
from service.vision.detections import Floats
from service.vision.input_size import InputSize

JOINED: Final = "boxes_and_scores"  # the name of the output that was two
END: Final = 1 << 30  # of a slice
ROUNDING: Final = 1e-3  # by which a probability may leave 0..1


def readable_outputs(graph: onnx.GraphProto) -> list[str]:
    """The first output, and those that may be its other half; raises UnsupportedModel.

    The undecoded maps that exporters may add have more than three dimensions.
    """
    first, *others = graph.output
    if first.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise UnsupportedModel(
            f"expected float32 boxes, the first output {first.name} is of another type: a model "
            "with its own NMS cannot be quantized; export it without (no --end2end, nms=False)"
        )
    halves = [
        each.name
        for each in others
        if each.type.tensor_type.elem_type == TensorProto.FLOAT
        and len(each.type.tensor_type.shape.dim) == 3
    ]
    return [first.name, *halves]


@dataclass(frozen=True, slots=True)
class _Half:
    """An output [1,N,columns], or [1,columns,N] where its rows lie across."""

    name: str
    rows: int
    columns: int
    across: bool

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...]) -> "_Half | None":
        if len(shape) != 3 or shape[0] != 1:
            return None
        across = shape[1] < shape[2]
        return cls(name, max(shape[1:]), min(shape[1:]), across)


def with_one_output(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with one output: [1,N,4+C] of boxes and scores that are two, else the first."""
    graph = Graph.of(model)
    pair = _pair(graph)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if pair is None:
        _end_at(copy, graph.outputs[0])
        return copy
    writer = _Writer(copy)
    rows = [
        writer.node("Transpose", [half.name], perm=[0, 2, 1]) if half.across else half.name
        for half in pair
    ]
    _end_at(copy, writer.node("Concat", rows, JOINED, axis=2))
    return copy


def is_joined(graph: Graph) -> bool:
    """Whether the output was two in the file."""
    return graph.outputs[0] == JOINED


def _pair(graph: Graph) -> tuple[_Half, _Half] | None:
    """Boxes and scores, if the first output is one of them."""
    first, *halves = [_Half.of(name, graph.shapes.get(name, ())) for name in graph.outputs]
    if first is None:
        return None
    others = [each for each in halves if each is not None and each.rows == first.rows]
    if first.columns == 4 and others:
        return first, others[0]
    boxes = next((each for each in others if each.columns == 4), None)
    return None if boxes is None else (boxes, first)


@dataclass(frozen=True, slots=True)
class Changes:
    """What an output lacks to be as a decoder reads it.

    across: its rows become columns, or the reverse. first_logit: from this column on it passes a
    sigmoid. scale: its boxes are fractions of an image of this size.
    """

    across: bool
    first_logit: int | None
    scale: InputSize | None


UNCHANGED: Final = Changes(across=False, first_logit=None, scale=None)


def changed(graph: Graph, changes: Changes) -> onnx.ModelProto:
    """A copy whose output, which has its boxes in the first four columns, is changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph.model)
    writer, output = _Writer(copy), graph.outputs[0]
    axis = 1 if graph.shapes[output][1] < graph.shapes[output][2] else 2
    if changes.scale is not None:
        boxes = writer.part(output, 0, 4, axis)
        sides = np.array([changes.scale.width, changes.scale.height] * 2, np.float32)
        factors = sides.reshape((1, 4, 1) if axis == 1 else (1, 1, 4))
        pixels = writer.node("Mul", [boxes, writer.constant(factors)])
        output = writer.node("Concat", [pixels, writer.part(output, 4, END, axis)], axis=axis)
    if (first := changes.first_logit) is not None:
        scores = writer.node("Sigmoid", [writer.part(output, first, END, axis)])
        output = writer.node("Concat", [writer.part(output, 0, first, axis), scores], axis=axis)
    if changes.across:
        output = writer.node("Transpose", [output], perm=[0, 2, 1])
    _end_at(copy, output)
    return shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)


def are_probabilities(scores: Floats) -> bool:
    return bool(((scores >= -ROUNDING) & (scores <= 1 + ROUNDING)).all())


def _end_at(model: onnx.ModelProto, output: str) -> None:
    model.graph.ClearField("output")
    model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    drop_unread(model)


class _Writer:
    """Appends nodes to a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph

    def node(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        made = name or f"output/{kind.lower()}{len(self._graph.node)}"
        self._graph.node.append(helper.make_node(kind, inputs, [made], made, **attributes))
        return made

    def part(self, tensor: str, start: int, end: int, axis: int) -> str:
        """The columns from `start` to `end`."""
        bounds = [self.constant(np.array([value])) for value in (start, end, axis)]
        return self.node("Slice", [tensor, *bounds])

    def constant(self, value: NDArray[Any]) -> str:
        name = f"output/constant{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name
