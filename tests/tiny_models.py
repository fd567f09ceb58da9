"""YOLOs small enough to build in a test, with the graphs that the official exporters write.

Random weights of a fixed seed, three classes whose names are in the metadata; of 64x64 pixels, or
of the size of the image that an option gives.
"""

from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.vision.heads import cells_of
from service.vision.input_size import InputSize

SIZE: Final = 64
INPUT: Final = InputSize(SIZE, SIZE)
CLASSES: Final = ("cat", "dog", "bird")
C: Final = len(CLASSES)
STRIDES: Final = (8, 16, 32)
CELLS: Final = cells_of(INPUT)


class Sketch:
    """Adds nodes to a graph; every method returns the names of its output tensors."""

    def __init__(self, image: Sequence[int | str] = (1, 3, SIZE, SIZE), opset: int = 17) -> None:
        self._image = list(image)
        self._opset = opset
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        height, width = (side if isinstance(side, int) else SIZE for side in self._image[2:])
        self.size = InputSize(width, height)  # of the grids in the decode tail

    def grid(self, stride: int) -> tuple[int, int]:
        """Rows and columns of the map of a stride."""
        return self.size.height // stride, self.size.width // stride

    def constant(self, name: str, value: object, dtype: type = np.int64) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def node(self, kind: str, name: str, *inputs: str, **attributes: object) -> str:
        self._nodes.append(
            helper.make_node(kind, list(inputs), [f"{name}.y"], name=name, **attributes)
        )
        return f"{name}.y"

    def split(self, name: str, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        made = [f"{name}.{index}" for index in range(len(sizes))]
        lengths = self.constant(f"{name}.sizes", sizes)
        self._nodes.append(helper.make_node("Split", [x, lengths], made, name=name, axis=axis))
        return made

    def top(self, name: str, x: str, count: int) -> list[str]:
        """Values and indices of the `count` largest."""
        made = [f"{name}.value", f"{name}.index"]
        limit = self.constant(f"{name}.count", [count])
        self._nodes.append(helper.make_node("TopK", [x, limit], made, name=name))
        return made

    def conv(
        self,
        name: str,
        x: str,
        channels: tuple[int, int],
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        bias: float = 0.0,
    ) -> str:
        """Weights that keep the variance; `channels` are those of the input and the output."""
        read, made = channels
        shape = (made, read // groups, kernel, kernel)
        scale = 1.5 / np.sqrt(np.prod(shape[1:]))
        weight = self._random.standard_normal(shape) * scale
        offset = bias + 0.1 * self._random.standard_normal(made)
        return self.node(
            "Conv",
            name,
            x,
            self.constant(f"{name}.weight", weight, np.float32),
            self.constant(f"{name}.bias", offset, np.float32),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4 if kernel % 2 else [(kernel - stride) // 2] * 4,
            group=groups,
        )

    def silu(self, name: str, x: str) -> str:
        return self.node("Mul", f"{name}.act", x, self.node("Sigmoid", f"{name}.gate", x))

    def conv_silu(self, name: str, x: str, channels: tuple[int, int], *shape: int) -> str:
        return self.silu(name, self.conv(name, x, channels, *shape))

    def bottleneck(self, name: str, x: str, width: int) -> str:
        """Two convolutions with a residual connection."""
        inner = self.conv_silu(f"{name}.cv1", x, (width, width))
        inner = self.conv_silu(f"{name}.cv2", inner, (width, width), 3)
        return self.node("Add", f"{name}.add", x, inner)

    def reshape(self, name: str, x: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", name, x, self.constant(f"{name}.shape", shape))

    def take(self, name: str, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        bounds = ("starts", start), ("ends", end), ("axes", axis), ("steps", step)
        return self.node(
            "Slice", name, x, *(self.constant(f"{name}.{key}", [value]) for key, value in bounds)
        )

    def concat(self, name: str, *inputs: str, axis: int = 1) -> str:
        return self.node("Concat", name, *inputs, axis=axis)

    def upsample(self, name: str, x: str) -> str:
        scales = self.constant(f"{name}.scales", [1, 1, 2, 2], np.float32)
        return self.node("Resize", name, x, "", scales, mode="nearest")

    def times(self, name: str, x: str, factor: object) -> str:
        return self.node("Mul", name, x, self.constant(f"{name}.factor", factor, np.float32))

    def plus(self, name: str, x: str, term: object) -> str:
        return self.node("Add", name, x, self.constant(f"{name}.term", term, np.float32))

    def pyramid(self, x: str, width: int) -> list[str]:
        """Maps of stride 8, 16 and 32 from one of stride 4, by plain convolutions."""
        levels = []
        for stride in STRIDES:
            x = self.conv_silu(f"p{stride}", x, (width, width), 3, 2)
            levels.append(x)
        return levels

    def model(self, *outputs: str, rank: int = 3) -> onnx.ModelProto:
        """The model; its outputs have dynamic sizes, as an export with dynamic axes has."""
        image = helper.make_tensor_value_info("images", TensorProto.FLOAT, self._image)
        shape = [f"d{axis}" for axis in range(rank)]
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs]
        graph = helper.make_graph(
            self._nodes, "tiny", [image], made, list(self._constants.values())
        )
        opset = helper.make_opsetid("", self._opset)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
        helper.set_model_props(model, {"names": str(dict(enumerate(CLASSES)))})
        onnx.checker.check_model(model)
        return model


def yolov5(**options: object) -> onnx.ModelProto:
    """C3 with a residual Add, SPPF, a neck of Resize and Concat, anchors -> [1,3*cells,5+C]."""
    s = Sketch(**options)
    x = s.conv_silu("stem", "images", (3, 8), 6, 2)
    x = s.conv_silu("down", x, (8, 16), 3, 2)
    main = s.bottleneck("c3.m", s.conv_silu("c3.cv1", x, (16, 8)), 8)
    x = s.concat("c3.cat", main, s.conv_silu("c3.cv2", x, (16, 8)))
    p8, p16, p32 = s.pyramid(s.conv_silu("c3.cv3", x, (16, 16)), 16)
    pools = [s.conv_silu("sppf.cv1", p32, (16, 8))]
    for index in (1, 2, 3):
        pool = {"kernel_shape": [5, 5], "strides": [1, 1], "pads": [2] * 4}
        pools.append(s.node("MaxPool", f"sppf.pool{index}", pools[-1], **pool))
    n32 = s.conv_silu("sppf.cv2", s.concat("sppf.cat", *pools), (32, 16))
    n16 = s.concat("n16.cat", s.upsample("n16.up", n32), p16)
    n16 = s.conv_silu("n16.cv", n16, (32, 16), 3)
    n8 = s.concat("n8.cat", s.upsample("n8.up", n16), p8)
    n8 = s.conv_silu("n8.cv", n8, (32, 16), 3)
    raw = [
        s.conv(f"detect{stride}", x, (16, 3 * (5 + C)))
        for stride, x in zip(STRIDES, (n8, n16, n32), strict=True)
    ]
    rows = [_anchored(s, stride, x) for stride, x in zip(STRIDES, raw, strict=True)]
    return s.model(s.concat("output", *rows))


def _anchored(s: Sketch, stride: int, x: str) -> str:
    """YOLOv5's decode of one level, with a grid of fixed size."""
    name, (rows, columns) = f"decode{stride}", s.grid(stride)
    x = s.reshape(f"{name}.boxes", x, [1, 3, 5 + C, rows, columns])
    x = s.node("Transpose", f"{name}.last", x, perm=[0, 1, 3, 4, 2])
    x = s.node("Sigmoid", f"{name}.sigmoid", x)
    xy, wh, scores = s.split(f"{name}.split", x, [2, 2, 1 + C], 4)
    grid = np.stack(np.meshgrid(range(columns), range(rows)), axis=-1)[None, None] - 0.5
    xy = s.times(
        f"{name}.pixels", s.plus(f"{name}.grid", s.times(f"{name}.xy", xy, 2), grid), stride
    )
    two = s.constant("two", 2, np.float32)
    wh = s.node("Pow", f"{name}.square", s.times(f"{name}.wh", wh, 2), two)
    anchors = stride * np.array([[1, 2], [2, 2], [2, 1]]).reshape(1, 3, 1, 1, 2)
    wh = s.times(f"{name}.anchors", wh, anchors)
    x = s.concat(f"{name}.cat", xy, wh, scores, axis=4)
    return s.reshape(f"{name}.rows", x, [1, 3 * rows * columns, 5 + C])


def yolox(**options: object) -> onnx.ModelProto:
    """Focus, depthwise convolutions, a decoupled head, no decode -> [1,cells,5+C]; any size."""
    s = Sketch(**{"opset": 11} | options)
    corners = []
    for index, (row, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        rows = s.take(f"focus.rows{index}", "images", row, 10_000, 2, 2)
        corners.append(s.take(f"focus.corner{index}", rows, column, 10_000, 3, 2))
    x = s.conv_silu("stem", s.concat("focus", *corners), (12, 8), 3)
    x = s.conv_silu("dark.dw", x, (8, 8), 3, 2, 8)
    x = s.conv_silu("dark.pw", x, (8, 16))
    return s.model(_decoupled(s, s.pyramid(x, 16)))


def _decoupled(s: Sketch, levels: Sequence[str]) -> str:
    raw = []
    for stride, x in zip(STRIDES, levels, strict=True):
        name = f"head{stride}"
        x = s.conv_silu(f"{name}.stem", x, (16, 8))
        scores = s.conv_silu(f"{name}.cls", x, (8, 8), 3)
        boxes = s.conv_silu(f"{name}.reg", x, (8, 8), 3)
        scores = s.node("Sigmoid", f"{name}.scores", s.conv(f"{name}.cls_pred", scores, (8, C)))
        sure = s.node("Sigmoid", f"{name}.sure", s.conv(f"{name}.obj_pred", boxes, (8, 1)))
        boxes = s.conv(f"{name}.reg_pred", boxes, (8, 4))
        x = s.concat(f"{name}.cat", boxes, sure, scores)
        raw.append(s.reshape(f"{name}.flat", x, [1, 5 + C, -1]))
    return s.node("Transpose", "output", s.concat("levels", *raw, axis=2), perm=[0, 2, 1])


def yolov8(**options: object) -> onnx.ModelProto:
    """C2f with a Split, a box distribution as softmax and expectation -> [1,4+C,cells]."""
    s = Sketch(**options)
    corners, scores = _distributed(s)
    left, right = s.split("dfl.sides", corners, [2, 2], 1)
    centre = s.times("box.half", s.node("Add", "box.sum", left, right), 0.5)
    extent = s.node("Sub", "box.extent", right, left)
    boxes = s.concat("box.xywh", centre, extent)
    return s.model(s.concat("output", boxes, scores))


def end2end(**options: object) -> onnx.ModelProto:
    """The same network with the best ten boxes chosen in the graph -> [1,10,6]."""
    s = Sketch(**options)
    corners, scores = _distributed(s)
    best = s.node("ReduceMax", "best", scores, axes=[1], keepdims=0)
    top, rank = s.top("top", best, 10)
    rank = s.reshape("rank", rank, [-1])
    kept = s.node(
        "Transpose", "kept", s.node("Gather", "gather", corners, rank, axis=2), perm=[0, 2, 1]
    )
    label = s.node("ArgMax", "label", scores, axis=1, keepdims=0)
    label = s.node("Cast", "number", s.node("Gather", "labels", label, rank, axis=1), to=1)
    columns = [s.reshape(f"{name}.column", name, [1, 10, 1]) for name in (top, label)]
    return s.model(s.concat("output", kept, *columns, axis=2))


def _distributed(s: Sketch) -> tuple[str, str]:
    """Corners in pixels [1,4,cells] and class scores [1,C,cells]."""
    x = s.conv_silu("stem", "images", (3, 16), 3, 2)
    x = s.conv_silu("c2f.cv1", x, (16, 16), 3, 2)
    first, second = s.split("c2f.split", x, [8, 8], 1)
    added = s.bottleneck("c2f.m", second, 8)
    x = s.conv_silu("c2f.cv2", s.concat("c2f.cat", first, second, added), (24, 16))
    raw = []
    for stride, level in zip(STRIDES, s.pyramid(x, 16), strict=True):
        boxes = s.conv_silu(f"box{stride}.cv", level, (16, 16), 3)
        boxes = s.conv(f"box{stride}", boxes, (16, 64))
        scores = s.conv_silu(f"cls{stride}.cv", level, (16, 8), 3)
        scores = s.conv(f"cls{stride}", scores, (8, C))
        both = s.concat(f"raw{stride}", boxes, scores)
        raw.append(s.reshape(f"flat{stride}", both, [1, 64 + C, prod(s.grid(stride))]))
    boxes, scores = s.split("parts", s.concat("levels", *raw, axis=2), [64, C], 1)
    sides = s.node(
        "Transpose",
        "dfl.first",
        s.reshape("dfl.bins", boxes, [1, 4, 16, cells_of(s.size)]),
        perm=[0, 2, 1, 3],
    )
    steps = s.constant("dfl.weight", np.arange(16).reshape(1, 16, 1, 1), np.float32)
    sides = s.node("Conv", "dfl", s.node("Softmax", "dfl.softmax", sides, axis=1), steps)
    left, right = s.split(
        "dfl.halves", s.reshape("dfl.flat", sides, [1, 4, cells_of(s.size)]), [2, 2], 1
    )
    centres, strides = _cells(s)
    points = s.constant("points", centres[None], np.float32)
    left = s.node("Sub", "dfl.left", points, left)
    right = s.node("Add", "dfl.right", points, right)
    corners = s.times("dfl.pixels", s.concat("dfl.corners", left, right), strides[None, None])
    return corners, s.node("Sigmoid", "scores", scores)


def _cells(s: Sketch) -> tuple[np.ndarray, np.ndarray]:
    """Centres in cells [2,cells] and the stride of each cell [cells]."""
    grids, strides = [], []
    for stride in STRIDES:
        rows, columns = s.grid(stride)
        grids.append(np.stack(np.meshgrid(range(columns), range(rows))).reshape(2, -1) + 0.5)
        strides += [stride] * rows * columns
    return np.concatenate(grids, axis=1), np.array(strides)


def yolov6(**options: object) -> onnx.ModelProto:
    """ReLU, a decoupled head without DFL and without objectness -> [1,cells,5+C], of it 1."""
    s = Sketch(**options)
    sides, scores = [], []
    for stride, box, classes in _decoupled_levels(s, "Relu", 4):
        sides.append(s.reshape(f"sides{stride}", box, [1, 4, -1]))
        chance = s.node("Sigmoid", f"chance{stride}", classes)
        scores.append(s.reshape(f"scores{stride}", chance, [1, C, -1]))
    rows = s.node("Transpose", "rows", s.concat("sides", *sides, axis=2), perm=[0, 2, 1])
    left, right = _corners(s, rows)
    centre = s.times("centre", s.node("Add", "sum", left, right), 0.5)
    extent = s.node("Sub", "extent", right, left)
    strides = _cells(s)[1][None, :, None]
    boxes = s.times("pixels", s.concat("boxes", centre, extent, axis=2), strides)
    sure = s.constant("sure", np.ones((1, cells_of(s.size), 1)), np.float32)
    scores = s.node("Transpose", "scores", s.concat("chances", *scores, axis=2), perm=[0, 2, 1])
    return s.model(s.concat("outputs", boxes, sure, scores, axis=2))


def yolonas(**options: object) -> onnx.ModelProto:
    """A distribution over 17 distances -> corners [1,cells,4] and scores [1,cells,C]."""
    s = Sketch(**options)
    bins = s.constant("bins.weight", np.arange(17).reshape(1, 17, 1, 1), np.float32)
    sides, scores = [], []
    for stride, box, classes in _decoupled_levels(s, "Relu", 68):
        name = f"dfl{stride}"
        box = s.reshape(f"{name}.bins", box, [1, 4, 17, prod(s.grid(stride))])
        box = s.node("Transpose", f"{name}.first", box, perm=[0, 2, 3, 1])
        box = s.node("Conv", name, s.node("Softmax", f"{name}.softmax", box, axis=1), bins)
        sides.append(s.reshape(f"{name}.flat", box, [1, -1, 4]))
        scores.append(s.reshape(f"scores{stride}", classes, [1, C, -1]))
    left, right = _corners(s, s.concat("sides", *sides, axis=1))
    corners = s.concat("corners", left, right, axis=2)
    boxes = s.times("boxes", corners, _cells(s)[1][None, :, None])
    scores = s.node("Transpose", "logits", s.concat("classes", *scores, axis=2), perm=[0, 2, 1])
    return s.model(boxes, s.node("Sigmoid", "scores", scores))


def _decoupled_levels(s: Sketch, act: str, box: int) -> list[tuple[int, str, str]]:
    """The stride, the map of boxes and the map of classes of each level."""
    x = s.node(act, "stem.act", s.conv("stem", "images", (3, 16), 3, 2))
    x = s.node(act, "down.act", s.conv("down", x, (16, 16), 3, 2))
    levels = []
    for stride, level in zip(STRIDES, s.pyramid(x, 16), strict=True):
        stem = s.conv_silu(f"head{stride}", level, (16, 8))
        boxes = s.conv(f"box{stride}", s.conv_silu(f"reg{stride}", stem, (8, 8), 3), (8, box))
        classes = s.conv(f"class{stride}", s.conv_silu(f"cls{stride}", stem, (8, 8), 3), (8, C))
        levels.append((stride, boxes, classes))
    return levels


def _corners(s: Sketch, sides: str) -> tuple[str, str]:
    """Left top and right bottom in cells, from the distances [1,cells,4]."""
    points = s.constant("points", _cells(s)[0].T[None], np.float32)
    before, after = s.split("halves", sides, [2, 2], 2)
    return s.node("Sub", "left", points, before), s.node("Add", "right", points, after)


def logits(**options: object) -> onnx.ModelProto:
    """YOLOv8 without the sigmoid of its scores -> [1,4+C,cells]."""
    model = yolov8(**options)
    (sigmoid,) = (node for node in model.graph.node if node.name == "scores")
    sigmoid.op_type = "Identity"
    return model


def transposed(**options: object) -> onnx.ModelProto:
    """YOLOv8 with its rows first -> [1,cells,4+C]."""
    model = yolov8(**options)
    (output,) = model.graph.output
    model.graph.node.append(
        helper.make_node("Transpose", [output.name], ["transposed.y"], perm=[0, 2, 1])
    )
    output.name = "transposed.y"
    return model


def fractions(**options: object) -> onnx.ModelProto:
    """YOLOv8 with its boxes in 0..1."""
    model = yolov8(**options)
    (output,) = model.graph.output
    size = Sketch(**options).size
    sides = [1 / size.width, 1 / size.height] * 2
    factors = np.array(sides + [1] * C, np.float32).reshape(1, -1, 1)
    model.graph.initializer.append(numpy_helper.from_array(factors, "factors"))
    model.graph.node.append(helper.make_node("Mul", [output.name, "factors"], ["fractions.y"]))
    output.name = "fractions.y"
    return model


def channels_last(**options: object) -> onnx.ModelProto:
    """YOLOv8 that reads [1,H,W,3]."""
    model = yolov8(**options)
    (image,) = model.graph.input
    for node in model.graph.node:
        node.input[:] = ["planes" if name == image.name else name for name in node.input]
    planes = helper.make_node("Transpose", [image.name], ["planes"], perm=[0, 3, 1, 2])
    model.graph.node.insert(0, planes)
    size = Sketch(**options).size
    shape = [1, size.height, size.width, 3]
    image.CopyFrom(helper.make_tensor_value_info(image.name, TensorProto.FLOAT, shape))
    return model


def half(**options: object) -> onnx.ModelProto:
    """YOLOv8 in float16, its input and its output included."""
    model = yolov8(**options)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def relu(**options: object) -> onnx.ModelProto:
    """ReLU everywhere, a residual Add before one, a pool -> [1,4+C,cells]."""
    s = Sketch(**options)
    x = s.node("Relu", "stem.act", s.conv("stem", "images", (3, 16), 3, 2))
    inner = s.node("Relu", "res.cv1.act", s.conv("res.cv1", x, (16, 16), 3))
    x = s.node("Add", "res.add", x, s.conv("res.cv2", inner, (16, 16), 3))
    x = s.node("Relu", "res.act", x)
    x = s.node("MaxPool", "pool", x, kernel_shape=[2, 2], strides=[2, 2])
    raw = []
    for stride in STRIDES:
        x = s.node("Relu", f"p{stride}.act", s.conv(f"p{stride}", x, (16, 16), 3, 2))
        made = s.conv(f"detect{stride}", x, (16, 4 + C), bias=1.0)
        raw.append(
            s.reshape(f"flat{stride}", s.times(f"pixels{stride}", made, stride), [1, 4 + C, -1])
        )
    return s.model(s.concat("output", *raw, axis=2))


TINY: Final[dict[str, Callable[..., onnx.ModelProto]]] = {
    "yolov5": yolov5,
    "yolox": yolox,
    "yolov8": yolov8,
    "end2end": end2end,
    "relu": relu,
}


# Forms in which one's own model may come; each detects as one of TINY's families.
OWN: Final[dict[str, Callable[..., onnx.ModelProto]]] = {
    "yolov6": yolov6,
    "yolonas": yolonas,
    "logits": logits,
    "transposed": transposed,
    "fractions": fractions,
    "channels_last": channels_last,
    "half": half,
}


def save_tiny(folder: Path, name: str, size: InputSize = INPUT) -> Path:
    """Write one of TINY or OWN to a file."""
    path = folder / f"{name}.onnx"
    onnx.save((TINY | OWN)[name](image=(1, 3, size.height, size.width)), path)
    return path
