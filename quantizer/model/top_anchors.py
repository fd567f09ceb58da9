"""The best anchors of a model's maps, selected in the graph.

Maps are megabytes, which a GPU must copy to the server. Few anchors can pass a threshold, so the
graph may select those with the highest scores itself: the outputs are then, for each of them,

    index f32[1,K,1], box f32[1,K,B], classes f32[1,K,C] and objectness f32[1,K,1], if there is one

as the maps hold them, in the order of `service.vision.maps.MapDecoder`, which is also that of their
names: TensorRT does not promise to keep the graph's.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from math import prod
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from quantizer.model.graph import drop_unread
from quantizer.model.map_layout import Maps
from service.vision.maps import Level, MapLayout, Part

TOP: Final = 1000  # more than any detector finds in an image
DEFAULT: Final = ("", "ai.onnx")  # the names of ONNX's own operators' domain
AXES_ARE_INPUTS: Final = 18  # the opset from which ReduceMax has its axes as an input


def ended_at_top(model: onnx.ModelProto, maps: Maps, count: int | None = None) -> onnx.ModelProto:
    """A copy that ends at its best anchors; `count`: of `top_layout` where None."""
    copy = deepcopy(model)
    writer = _Writer(copy)
    layout = maps.layout
    rows = {part: writer.rows(maps, part) for part in _parts(layout)}
    certain = "objectness" if layout.levels[0].objectness is not None else "classes"
    best = writer.largest(rows[certain])
    wanted = count or top_layout(layout).top or TOP
    limit = writer.constant("count", np.array([min(wanted, _anchors(maps))]))
    _, index = writer.nodes_of("TopK", [best, limit], 2, axis=1)
    outputs = [writer.node("Unsqueeze", [writer.as_float(index), writer.constant("axis", [2])])]
    flat = writer.node("Reshape", [index, writer.constant("flat", [-1])])
    outputs += [writer.node("Gather", [tensor, flat], axis=1) for tensor in rows.values()]
    copy.graph.ClearField("output")
    for number, (name, kind) in enumerate(zip(outputs, ("index", *rows), strict=True)):
        writer.output(name, f"anchors/{number}/{kind}")
    drop_unread(copy)
    return shape_inference.infer_shapes(copy, strict_mode=True)


def top_layout(layout: MapLayout) -> MapLayout:
    """How the outputs of `ended_at_top` are read: of an end-to-end head, as many as it selects."""
    return replace(layout, top=layout.limit or TOP)


def _parts(layout: MapLayout) -> tuple[str, ...]:
    with_objectness = layout.levels[0].objectness is not None
    return ("box", "classes", "objectness") if with_objectness else ("box", "classes")


def _anchors(maps: Maps) -> int:
    return sum(
        max(1, len(level.anchors)) * prod(maps.shapes[level.box.map][2:])
        for level in maps.layout.levels
    )


class _Writer:
    """Appends nodes and constants to a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._opset = next(each.version for each in model.opset_import if each.domain in DEFAULT)
        self._made = 0

    def constant(self, name: str, values: object) -> str:
        full = f"anchors/{name}"
        if all(tensor.name != full for tensor in self._graph.initializer):
            array = np.asarray(values, np.int64)
            self._graph.initializer.append(numpy_helper.from_array(array, full))
        return full

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        (name,) = self.nodes_of(kind, inputs, 1, **attributes)
        return name

    def nodes_of(self, kind: str, inputs: list[str], count: int, **attributes: Any) -> list[str]:
        self._made += 1
        made = [f"anchors/{kind.lower()}{self._made}.{index}" for index in range(count)]
        self._graph.node.append(
            helper.make_node(kind, inputs, made, name=f"{made[0]}/node", **attributes)
        )
        return made

    def largest(self, name: str) -> str:
        """f32[1,N,C] -> f32[1,N]."""
        if self._opset < AXES_ARE_INPUTS:
            return self.node("ReduceMax", [name], axes=[2], keepdims=0)
        return self.node("ReduceMax", [name, self.constant("axis", [2])], keepdims=0)

    def as_float(self, name: str) -> str:
        return self.node("Cast", [name], to=TensorProto.FLOAT)

    def output(self, made: str, name: str) -> None:
        self._graph.node.append(helper.make_node("Identity", [made], [name], name=f"{name}/node"))
        self._graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    def rows(self, maps: Maps, kind: str) -> str:
        """f32[1,N,channels] of all levels: one row for each anchor."""
        levels = [
            self._level_rows(maps, level, part, width)
            for level, part, width in _selected(maps.layout, kind)
        ]
        return self.node("Concat", levels, axis=1)

    def _level_rows(self, maps: Maps, level: Level, part: Part, width: int) -> str:
        tensor = maps.tensors[part.map]
        last = self.node("Transpose", [tensor], perm=[0, 2, 3, 1])
        channels = maps.shapes[part.map][1] // max(1, len(level.anchors))
        rows = self.node("Reshape", [last, self.constant(f"rows{channels}", [1, -1, channels])])
        if channels == width:
            return rows
        bounds = [
            self.constant(f"{name}{value}", [value])
            for name, value in (("from", part.channel), ("to", part.channel + width), ("axis", 2))
        ]
        return self.node("Slice", [rows, *bounds])


def _selected(layout: MapLayout, kind: str) -> Iterator[tuple[Level, Part, int]]:
    widths = {"box": 4 * max(1, len(layout.bins)), "classes": layout.class_count, "objectness": 1}
    for level in layout.levels:
        part = {"box": level.box, "classes": level.classes, "objectness": level.objectness}[kind]
        assert part is not None
        yield level, part, widths[kind]
