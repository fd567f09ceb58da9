"""YOLOv5 and YOLOv7 as ONNX graphs with random weights, in the form in which they are exported.

Batch norms and RepConv are fused, grid and anchors are constants. The channel counts, depths and
anchors are those of the published repositories; the weights are the same in every run.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Anchors = Sequence[tuple[int, int]]  # width and height in pixels, of one level

SIZE: Final = 640
CLASSES: Final = 80
STRIDES: Final = (8, 16, 32)
ANCHORS: Final = {  # by level
    "yolov5": (
        ((10, 13), (16, 30), (33, 23)),
        ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    ),
    "yolov7": (
        ((12, 16), (19, 36), (40, 28)),
        ((36, 75), (76, 55), (72, 146)),
        ((142, 110), (192, 243), (459, 401)),
    ),
}
GAIN: Final = 1.25  # on He's initialisation: with BIAS, activations keep their scale at any depth
BIAS: Final = 0.5


class Network:
    """A graph under construction; methods append nodes and return the name of their output."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._channels = {"images": 3}
        self._graph = onnx.GraphProto(name="detector")
        self._graph.input.append(_described("images", [1, 3, SIZE, SIZE]))

    def constant(self, value: object, dtype: type = np.float32) -> str:
        name = f"constant_{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, channels: int = 0, **attributes: Any) -> str:
        name = f"{kind}_{len(self._graph.node)}"
        output = f"{name}_output"
        self._graph.node.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        self._channels[output] = channels or self._channels.get(inputs[0], 0)
        return output

    def plain_conv(
        self, x: str, outputs: int, kernel: int = 1, stride: int = 1, bias: object = None
    ) -> str:
        """Without an activation; the bias is random unless given."""
        shape = (outputs, self._channels[x], kernel, kernel)
        weight = self._random.standard_normal(shape, np.float32)
        weight *= np.float32(GAIN / np.sqrt(np.prod(shape[1:])))
        if bias is None:
            bias = BIAS * self._random.standard_normal(outputs)
        return self.node(
            "Conv",
            x,
            self.constant(weight),
            self.constant(bias),
            channels=outputs,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[(kernel - 1) // 2] * 4,
        )

    def conv(self, x: str, outputs: int, kernel: int = 1, stride: int = 1) -> str:
        """Convolution and SiLU."""
        x = self.plain_conv(x, outputs, kernel, stride)
        return self.node("Mul", x, self.node("Sigmoid", x))

    def pool(self, x: str, kernel: int, stride: int = 1) -> str:
        pad = kernel // 2 if stride == 1 else 0
        return self.node(
            "MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4
        )

    def concat(self, *maps: str, axis: int = 1) -> str:
        channels = sum(self._channels[x] for x in maps)
        return self.node("Concat", *maps, channels=channels, axis=axis)

    def upsample(self, x: str) -> str:
        """Nearest neighbour by two, as PyTorch exports it."""
        return self.node(
            *("Resize", x, "", self.constant([1, 1, 2, 2])),
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )

    def c3(self, x: str, outputs: int, depth: int, shortcut: bool = True) -> str:
        """YOLOv5's stage: `depth` bottlenecks on one branch, one convolution on the other."""
        main, side = self.conv(x, outputs // 2), self.conv(x, outputs // 2)
        for _ in range(depth):
            inner = self.conv(self.conv(main, outputs // 2), outputs // 2, 3)
            main = self.node("Add", main, inner) if shortcut else inner
        return self.conv(self.concat(main, side), outputs)

    def sppf(self, x: str, outputs: int) -> str:
        """YOLOv5's spatial pyramid: three 5x5 pools in series."""
        maps = [self.conv(x, self._channels[x] // 2)]
        for _ in range(3):
            maps.append(self.pool(maps[-1], 5))
        return self.conv(self.concat(*maps), outputs)

    def elan(self, x: str, width: int, outputs: int, chain: Sequence[int], dense: bool) -> str:
        """YOLOv7's stage: a chain of 3x3; all of its maps or every second one are concatenated."""
        maps = [self.conv(x, width), self.conv(x, width)]
        for channels in chain:
            maps.append(self.conv(maps[-1], channels, 3))
        joined = maps if dense else [maps[0], *maps[1::2]]
        return self.conv(self.concat(*reversed(joined)), outputs)

    def halve(self, x: str, width: int, *others: str) -> str:
        """YOLOv7's transition: a pool in parallel with a convolution of stride 2."""
        pooled = self.conv(self.pool(x, 2, 2), width)
        return self.concat(self.conv(self.conv(x, width), width, 3, 2), pooled, *others)

    def sppcspc(self, x: str, outputs: int) -> str:
        """YOLOv7's spatial pyramid: pools of 5, 9 and 13 in parallel, and a bypass."""
        main = self.conv(self.conv(self.conv(x, outputs), outputs, 3), outputs)
        pools = [self.pool(main, kernel) for kernel in (5, 9, 13)]
        main = self.conv(self.conv(self.concat(main, *pools), outputs), outputs, 3)
        return self.conv(self.concat(main, self.conv(x, outputs)), outputs)

    def detect(self, maps: Sequence[str], anchors: Sequence[Anchors]) -> onnx.ModelProto:
        """The anchor head on maps of strides 8, 16 and 32 -> [1,25200,85]."""
        levels = zip(maps, STRIDES, anchors, strict=True)
        rows = [self._decoded(x, stride, boxes) for x, stride, boxes in levels]
        total = sum(3 * (SIZE // stride) ** 2 for stride in STRIDES)
        self._graph.node.append(helper.make_node("Concat", rows, ["output"], "output", axis=1))
        self._graph.output.append(_described("output", [1, total, 5 + CLASSES]))
        opset = helper.make_opsetid("", 17)
        return helper.make_model(self._graph, opset_imports=[opset], ir_version=9)

    def _decoded(self, x: str, stride: int, anchors: Anchors) -> str:
        """Raw feature map -> centre and size in pixels, objectness, class scores."""
        cells = SIZE // stride
        x = self.plain_conv(x, 3 * (5 + CLASSES), bias=_prior(stride))
        x = self._reshape(x, [1, 3, 5 + CLASSES, cells, cells])
        x = self.node("Sigmoid", self.node("Transpose", x, perm=[0, 1, 3, 4, 2]))
        xy, wh, scores = self._split(x, [2, 2, 1 + CLASSES])
        grid = np.stack(np.meshgrid(range(cells), range(cells)), axis=-1) - 0.5
        xy = self.node("Mul", xy, self.constant(2))
        xy = self.node("Add", xy, self.constant(grid[None, None]))
        xy = self.node("Mul", xy, self.constant(stride))
        wh = self.node("Pow", self.node("Mul", wh, self.constant(2)), self.constant(2))
        wh = self.node("Mul", wh, self.constant(np.reshape(anchors, (1, 3, 1, 1, 2))))
        return self._reshape(self.concat(xy, wh, scores, axis=4), [1, -1, 5 + CLASSES])

    def _reshape(self, x: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", x, self.constant(shape, np.int64))

    def _split(self, x: str, lengths: Sequence[int]) -> list[str]:
        outputs = [f"{x}_part{index}" for index in range(len(lengths))]
        inputs = [x, self.constant(lengths, np.int64)]
        self._graph.node.append(helper.make_node("Split", inputs, outputs, f"{x}_split", axis=4))
        self._channels |= dict.fromkeys(outputs, 0)
        return outputs


def _described(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _prior(stride: int) -> np.ndarray:
    """The bias that YOLO starts training with: 8 objects an image, so scores are low."""
    bias = np.zeros((3, 5 + CLASSES))
    bias[:, 4] = np.log(8 / (SIZE / stride) ** 2)
    bias[:, 5:] = np.log(0.6 / (CLASSES - 1))
    return bias.ravel()


def yolov5(width: float, depth: float) -> onnx.ModelProto:
    """Releases 6 and 7; `width` and `depth` scale channels and numbers of bottlenecks."""
    net = Network()
    w64, w128, w256, w512, w1024 = (int(width * outputs) for outputs in (64, 128, 256, 512, 1024))
    d3, d6, d9 = (max(1, round(depth * count)) for count in (3, 6, 9))
    x = net.conv(net.conv("images", w64, 6, 2), w128, 3, 2)
    x = net.conv(net.c3(x, w128, d3), w256, 3, 2)
    p8 = net.c3(x, w256, d6)
    p16 = net.c3(net.conv(p8, w512, 3, 2), w512, d9)
    x = net.c3(net.conv(p16, w1024, 3, 2), w1024, d3)
    top32 = net.conv(net.sppf(x, w1024), w512)
    x = net.c3(net.concat(net.upsample(top32), p16), w512, d3, shortcut=False)
    top16 = net.conv(x, w256)
    n8 = net.c3(net.concat(net.upsample(top16), p8), w256, d3, shortcut=False)
    n16 = net.c3(net.concat(net.conv(n8, w256, 3, 2), top16), w512, d3, shortcut=False)
    n32 = net.c3(net.concat(net.conv(n16, w512, 3, 2), top32), w1024, d3, shortcut=False)
    return net.detect([n8, n16, n32], ANCHORS["yolov5"])


def yolov7(base: int, depth: int, dense_neck: bool) -> onnx.ModelProto:
    """The deploy form; `base` channels in the first convolution, `depth` in each chain.

    A dense neck concatenates all maps of its chains, which are half as wide.
    """
    net = Network()

    def stage(x: str, width: int, outputs: int) -> str:
        return net.elan(x, width, outputs, [width] * depth, dense=False)

    def neck(x: str, width: int, outputs: int) -> str:
        inner = width // 2 if dense_neck else width
        return net.elan(x, width, outputs, [inner] * depth, dense_neck)

    x = net.conv(net.conv(net.conv("images", base, 3), 2 * base, 3, 2), 2 * base, 3)
    x = stage(net.conv(x, 4 * base, 3, 2), 64, 8 * base)
    p8 = stage(net.halve(x, 4 * base), 128, 16 * base)
    p16 = stage(net.halve(p8, 8 * base), 256, 32 * base)
    x = stage(net.halve(p16, 16 * base), 256, 32 * base)
    top32 = net.sppcspc(x, 16 * base)
    up = net.upsample(net.conv(top32, 8 * base))
    top16 = neck(net.concat(net.conv(p16, 8 * base), up), 256, 8 * base)
    up = net.upsample(net.conv(top16, 4 * base))
    n8 = neck(net.concat(net.conv(p8, 4 * base), up), 128, 4 * base)
    n16 = neck(net.halve(n8, 4 * base, top16), 256, 8 * base)
    n32 = neck(net.halve(n16, 8 * base, top32), 512, 16 * base)
    maps = [net.conv(x, outputs * base, 3) for x, outputs in ((n8, 8), (n16, 16), (n32, 32))]
    return net.detect(maps, ANCHORS["yolov7"])


ARCHITECTURES: Final[dict[str, Callable[[], onnx.ModelProto]]] = {
    "yolov5n": partial(yolov5, 0.25, 0.33),
    "yolov5s": partial(yolov5, 0.5, 0.33),
    "yolov5m": partial(yolov5, 0.75, 0.67),
    "yolov7": partial(yolov7, 32, 4, dense_neck=True),
    "yolov7x": partial(yolov7, 40, 6, dense_neck=False),
}
