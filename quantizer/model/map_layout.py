"""Recognise a decode tail: find the layout with which the server decodes the maps as the tail does.

Exporters write the same decoding in many ways, so the operators are not read. The number of maps,
their sizes and their channels leave a few layouts; the tail itself, executed on chosen maps, tells
the anchors; and a layout is accepted when it decodes random maps as the tail does. Otherwise the
graph keeps its tail.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantizer.model.decode_tail import decode_tail, last_convolutions
from quantizer.model.execution import open_session
from quantizer.model.graph import Graph
from service.vision.detections import Detections, Floats
from service.vision.heads import HEADS, Candidates, Head, HeadName, detections_of
from service.vision.input_size import InputSize
from service.vision.maps import Level, MapDecoder, MapLayout, Part

PIXEL: Final = 1e-3  # the largest difference of a coordinate
SCORE: Final = 1e-5
ALL: Final = -1.0  # a threshold that keeps every anchor
SPREAD: Final = 1.5  # of random logits: a box of YOLOX stays below 10,000 pixels
# An end-to-end head sorts its boxes, so a few scores far apart must tell them.
TOLD: Final = 120
BACKGROUND: Final = -14.0  # logit


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """Why the server cannot decode the maps itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Maps:
    """The tensors f32[1,C,H,W] at which a graph can end, and how they are read as f32[1,H,W,C]."""

    tensors: tuple[str, ...]
    layout: MapLayout
    shapes: tuple[tuple[int, ...], ...]


def recognise_maps(graph: Graph, head: HeadName, size: InputSize) -> Maps | Unrecognised:
    """The maps of the last convolutions, if the server can decode them as the graph does."""
    convolutions = last_convolutions(graph)
    tensors = tuple(node.output[0] for node in convolutions)
    shapes = [graph.shapes.get(tensor, ()) for tensor in tensors]
    if any(len(shape) != 4 for shape in shapes):
        return Unrecognised("the shapes of its last convolutions are not known")
    tail = _Tail.of(graph, tensors, shapes)
    if isinstance(tail, Unrecognised):
        return tail
    for layout in _possible(tail, head, size):
        if tail.is_decoded_by(layout, HEADS[head], size):
            return Maps(tensors, layout, tuple(shapes))
    channels = ", ".join(f"{shape[1]} at {shape[2]}x{shape[3]}" for shape in shapes)
    return Unrecognised(f"no known layout decodes its maps ({channels}) as its decode tail does")


@dataclass(frozen=True, slots=True, eq=False)
class _Tail:
    """The decode tail as a function of the maps."""

    model: onnx.ModelProto
    tensors: tuple[str, ...]
    shapes: Sequence[tuple[int, ...]]
    output_shape: tuple[int, ...]

    @classmethod
    def of(
        cls, graph: Graph, tensors: tuple[str, ...], shapes: Sequence[tuple[int, ...]]
    ) -> "_Tail | Unrecognised":
        nodes = decode_tail(graph)
        made = {name for node in nodes for name in node.output} | set(tensors)
        read = {name for node in nodes for name in node.input if name}
        others = sorted(read - made - set(graph.constants))
        if others:
            return Unrecognised(f"its decode tail also reads {others[0]}")
        inputs = [
            helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)
            for tensor, shape in zip(tensors, shapes, strict=True)
        ]
        output = helper.make_tensor_value_info(graph.outputs[0], TensorProto.FLOAT, None)
        constants = [graph.constants[name] for name in sorted(read & set(graph.constants))]
        model = helper.make_model(
            helper.make_graph(nodes, "tail", inputs, [output], constants),
            opset_imports=graph.model.opset_import,
            ir_version=graph.model.ir_version,
        )
        return cls(model, tensors, shapes, graph.shapes.get(graph.outputs[0], ()))

    def execute(self, maps: Sequence[Floats]) -> Floats:
        """f32[1,C,H,W] each -> the output of the graph."""
        session = open_session(self.model, 1)
        (output,) = session.run(None, dict(zip(self.tensors, maps, strict=True)))
        return np.asarray(output, np.float32)

    def is_decoded_by(self, layout: MapLayout, head: Head, size: InputSize) -> bool:
        """Whether the layout decodes random maps into the boxes that the tail makes of them."""
        random = np.random.default_rng(0)
        maps = [random.normal(0, SPREAD, shape).astype(np.float32) for shape in self.shapes]
        if layout.limit is not None:
            _tell_apart(maps, layout, random)
        expected = head.decode(self.execute(maps), size, ALL)
        decoder = MapDecoder(layout, size)
        decoded = decoder.decode([_channels_last(each) for each in maps], ALL)
        if layout.limit is not None:
            return _same_detections(expected, decoded, layout)
        return _same_candidates(expected, _in_graph_order(decoded, layout, self.shapes))


def _possible(tail: _Tail, head: HeadName, size: InputSize) -> Iterator[MapLayout]:
    """The layouts that the shapes allow."""
    levels: defaultdict[int, list[int]] = defaultdict(list)
    for index, (_, _, height, width) in enumerate(tail.shapes):
        stride = size.height // height if height else 0
        if (height * stride, width * stride) != (size.height, size.width):
            return
        levels[stride].append(index)
    by_stride = sorted(levels.items())
    match {len(indices) for indices in levels.values()}:
        case counts if counts == {1} and head == "yolov5":
            yield from _anchor_layouts(tail, by_stride)
        case counts if counts == {2} and head != "yolox":
            yield from _distance_layouts(tail, by_stride, head)
        case counts if counts == {3} and head in ("yolov5", "yolox"):
            yield from _exponential_layouts(tail, by_stride)


def _anchor_layouts(tail: _Tail, levels: list[tuple[int, list[int]]]) -> Iterator[MapLayout]:
    """One map a level: for each anchor 4 numbers of the box, the objectness, the classes.

    Where all numbers are 0, the sizes of the boxes are the anchors.
    """
    columns = tail.output_shape[-1]
    per_level = [tail.shapes[index][1] // columns for _, (index,) in levels]
    if any(tail.shapes[index][1] % columns for _, (index,) in levels):
        return
    rows = tail.execute([np.zeros(shape, np.float32) for shape in tail.shapes])[0]
    start, made = 0, []
    for (stride, (index,)), count in zip(levels, per_level, strict=True):
        cells = tail.shapes[index][2] * tail.shapes[index][3]
        sizes = rows[start : start + count * cells : cells, 2:4]
        start += count * cells
        anchors = tuple((float(width), float(height)) for width, height in sizes)
        made.append(Level(stride, Part(index), Part(index, 5), Part(index, 4), anchors))
    yield MapLayout("anchors", columns - 5, tuple(made))


def _distance_layouts(
    tail: _Tail, levels: list[tuple[int, list[int]]], head: HeadName
) -> Iterator[MapLayout]:
    """Two maps a level: four sides of `bins` numbers each, and the classes."""
    limit = tail.output_shape[1] if head == "end2end" else None
    for (box, classes), one_class in product(permutations((0, 1)), (False, True)):
        if one_class and limit is None:
            continue
        channels = {
            (tail.shapes[indices[box]][1], tail.shapes[indices[classes]][1])
            for _, indices in _by_channels(tail, levels)
        }
        if len(channels) != 1:
            continue
        ((box_channels, class_count),) = channels
        if box_channels % 4:
            continue
        yield MapLayout(
            "distances",
            class_count,
            tuple(
                Level(stride, Part(indices[box]), Part(indices[classes]))
                for stride, indices in _by_channels(tail, levels)
            ),
            bins=_bins(tail.model, box_channels // 4),
            limit=limit,
            one_class=one_class,
        )


def _bins(tail: onnx.ModelProto, count: int) -> tuple[float, ...]:
    """The weights of DFL's convolution, or 0, 1, 2, ... where the tail is written without one."""
    if count == 1:
        return ()
    constants = {tensor.name: tensor for tensor in tail.graph.initializer}
    for node in tail.graph.node:
        if node.op_type == "Conv":
            weight = numpy_helper.to_array(constants[node.input[1]]).ravel()
            return tuple(map(float, weight))
    return tuple(map(float, range(count)))


def _exponential_layouts(tail: _Tail, levels: list[tuple[int, list[int]]]) -> Iterator[MapLayout]:
    """Three maps a level: the box, the objectness and the classes, in any order."""
    class_count = tail.output_shape[-1] - 5
    for order in permutations(range(3)):
        box, objectness, classes = order
        wanted = {box: 4, objectness: 1, classes: class_count}
        if all(
            tail.shapes[indices[position]][1] == count
            for _, indices in levels
            for position, count in wanted.items()
        ):
            yield MapLayout(
                "exponential",
                class_count,
                tuple(
                    Level(
                        stride,
                        Part(indices[box]),
                        Part(indices[classes]),
                        Part(indices[objectness]),
                    )
                    for stride, indices in levels
                ),
            )


def _by_channels(tail: _Tail, levels: list[tuple[int, list[int]]]) -> list[tuple[int, list[int]]]:
    """The maps of each level in the order of their channels, equal ones in the graph's order."""
    return [
        (stride, sorted(indices, key=lambda index: tail.shapes[index][1]))
        for stride, indices in levels
    ]


def _channels_last(values: Floats) -> Floats:
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1))


def _tell_apart(maps: list[Floats], layout: MapLayout, random: np.random.Generator) -> None:
    """Fill the class maps with background, but for TOLD logits far apart.

    A cell has two of them, neighbours in rank, so that a head that gives a box one class shows it.
    """
    pairs = np.linspace(3, -3, TOLD, dtype=np.float32).reshape(-1, 2)
    shares = np.array_split(random.permutation(pairs), len(layout.levels))
    for level, share in zip(layout.levels, shares, strict=True):
        classes = maps[level.classes.map]
        classes[:] = BACKGROUND
        by_cell = classes.reshape(layout.class_count, -1)
        for cell, pair in zip(random.permutation(by_cell.shape[1]), share, strict=False):
            labels = random.permutation(layout.class_count)[:2]
            by_cell[labels, cell] = pair[: len(labels)]


def _in_graph_order(
    decoded: Candidates, layout: MapLayout, shapes: Sequence[tuple[int, ...]]
) -> Candidates:
    """The server decodes the anchors of a cell one after another, YOLOv5 the cells of an anchor."""
    start, order = 0, []
    for level in layout.levels:
        _, _, height, width = shapes[level.box.map]
        count = max(1, len(level.anchors))
        index = np.arange(height * width * count).reshape(-1, count)
        order.append(start + index.T.ravel())
        start += index.size
    rows = np.concatenate(order)
    return Candidates(decoded.xyxy[rows], decoded.scores[rows])


def _same_candidates(a: Candidates, b: Candidates) -> bool:
    return (
        a.scores.shape == b.scores.shape
        and bool(np.allclose(a.xyxy, b.xyxy, rtol=1e-6, atol=PIXEL))
        and bool(np.allclose(a.scores, b.scores, rtol=0, atol=SCORE))
    )


def _same_detections(a: Candidates, b: Candidates, layout: MapLayout) -> bool:
    """The best boxes of both, each with its class."""
    best_a, best_b = (_best(side, layout) for side in (a, b))
    return (
        np.array_equal(best_a.class_ids, best_b.class_ids)
        and bool(np.allclose(best_a.xyxy, best_b.xyxy, rtol=1e-6, atol=PIXEL))
        and bool(np.allclose(best_a.scores, best_b.scores, rtol=0, atol=SCORE))
    )


def _best(candidates: Candidates, layout: MapLayout) -> Detections:
    detections = detections_of(candidates, 0.01, multi_label=not layout.one_class)
    return detections.take(np.arange(min(len(detections), layout.limit or TOLD)))
