"""The speed table of the Q-YOLO paper on this box: YOLOv5 and YOLOv7, float beside int8.

    .venv/bin/python bench/architectures.py [--model yolov5s --model yolov7] [--calibration DIR]

Speed does not depend on what the weights are, so the published architectures are built with random
ones, in the form in which they are exported: batch norms and RepConv fused, grid and anchors baked
in. `--weights FILE` times a real export of the one `--model` instead.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from quantizer.build import build
from quantizer.compile.hardware import detect
from quantizer.compile.runtime import choose_runtime
from quantizer.config import MIN_SQNR, BuildConfig
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from qyolo.bench import Bench, bench, noise
from qyolo.cli.progress import progress_bars
from service.engines.cpu import usable_threads
from service.manifest import DEVICE_OF
from service.progress import ReportProgress

SIZE: Final = 640
CLASSES: Final = 80
STRIDES: Final = (8, 16, 32)
ANCHORS: Final = {  # pixels, by stride
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
GAIN: Final = 1.25  # of He's weights, which with BIAS settles a SiLU network at any depth
BIAS: Final = 0.5
PAPER: Final = {  # fp32 over int8, from its table 4
    "cpu": {
        "i7-12700H": {"yolov5s": 1.45, "yolov7": 2.24},
        "i9-10900": {"yolov5s": 1.65, "yolov7": 2.12},
    },
    "gpu": {
        "RTX 4090": {"yolov5s": 1.63, "yolov7": 3.11},
        "Tesla T4": {"yolov5s": 1.58, "yolov7": 2.87},
    },
}
PICTURES: Final = 8  # drawn where no calibration images are given


class Network:
    """Grows a graph; every method returns the name of the tensor that it made."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._channels = {"images": 3}
        self._graph = onnx.GraphProto(name="detector")
        self._graph.input.append(_described("images", [1, 3, SIZE, SIZE]))

    def constant(self, value: object, dtype: type = np.float32) -> str:
        name = f"constant_{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, kind: str, *inputs: str, channels: int = 0, **attributes: object) -> str:
        name = f"{kind}_{len(self._graph.node)}"
        made = f"{name}_output"
        self._graph.node.append(helper.make_node(kind, inputs, [made], name=name, **attributes))
        self._channels[made] = channels or self._channels.get(inputs[0], 0)
        return made

    def plain_conv(
        self, x: str, made: int, kernel: int = 1, stride: int = 1, bias: object = None
    ) -> str:
        """Without an activation; a random bias where none is given."""
        shape = (made, self._channels[x], kernel, kernel)
        weight = self._random.standard_normal(shape, np.float32)
        weight *= np.float32(GAIN / np.sqrt(np.prod(shape[1:])))
        if bias is None:
            bias = BIAS * self._random.standard_normal(made)
        return self.node(
            "Conv",
            x,
            self.constant(weight),
            self.constant(bias),
            channels=made,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[(kernel - 1) // 2] * 4,
        )

    def conv(self, x: str, made: int, kernel: int = 1, stride: int = 1) -> str:
        """Convolution and SiLU."""
        x = self.plain_conv(x, made, kernel, stride)
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
        """Twice as large, nearest, in PyTorch's terms."""
        terms = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", x, "", self.constant([1, 1, 2, 2]), mode="nearest", **terms)

    def c3(self, x: str, made: int, depth: int, shortcut: bool = True) -> str:
        """YOLOv5's stage: `depth` bottlenecks on one half, a plain convolution on the other."""
        main, side = self.conv(x, made // 2), self.conv(x, made // 2)
        for _ in range(depth):
            inner = self.conv(self.conv(main, made // 2), made // 2, 3)
            main = self.node("Add", main, inner) if shortcut else inner
        return self.conv(self.concat(main, side), made)

    def sppf(self, x: str, made: int) -> str:
        """YOLOv5's spatial pyramid: pools of 5 in a row."""
        maps = [self.conv(x, self._channels[x] // 2)]
        for _ in range(3):
            maps.append(self.pool(maps[-1], 5))
        return self.conv(self.concat(*maps), made)

    def elan(self, x: str, width: int, made: int, chain: Sequence[int], dense: bool) -> str:
        """YOLOv7's stage: a chain of 3x3 of which all maps, or every second one, are joined."""
        maps = [self.conv(x, width), self.conv(x, width)]
        for channels in chain:
            maps.append(self.conv(maps[-1], channels, 3))
        joined = maps if dense else [maps[0], *maps[1::2]]
        return self.conv(self.concat(*reversed(joined)), made)

    def halve(self, x: str, width: int, *others: str) -> str:
        """YOLOv7's transition: a pool beside a convolution of stride 2."""
        pooled = self.conv(self.pool(x, 2, 2), width)
        return self.concat(self.conv(self.conv(x, width), width, 3, 2), pooled, *others)

    def sppcspc(self, x: str, made: int) -> str:
        """YOLOv7's spatial pyramid: pools of 5, 9 and 13 side by side, and a way around them."""
        main = self.conv(self.conv(self.conv(x, made), made, 3), made)
        pools = [self.pool(main, kernel) for kernel in (5, 9, 13)]
        main = self.conv(self.conv(self.concat(main, *pools), made), made, 3)
        return self.conv(self.concat(main, self.conv(x, made)), made)

    def detect(self, maps: Sequence[str], anchors: Sequence[object]) -> onnx.ModelProto:
        """The anchor head on maps of strides 8, 16 and 32 -> [1,25200,85]."""
        levels = zip(maps, STRIDES, anchors, strict=True)
        rows = [self._decoded(x, stride, boxes) for x, stride, boxes in levels]
        total = sum(3 * (SIZE // stride) ** 2 for stride in STRIDES)
        self._graph.node.append(helper.make_node("Concat", rows, ["output"], "output", axis=1))
        self._graph.output.append(_described("output", [1, total, 5 + CLASSES]))
        opset = helper.make_opsetid("", 17)
        return helper.make_model(self._graph, opset_imports=[opset], ir_version=9)

    def _decoded(self, x: str, stride: int, anchors: object) -> str:
        """Raw map of a level -> centre and size in pixels, objectness, class scores."""
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
        made = [f"{x}_part{index}" for index in range(len(lengths))]
        inputs = [x, self.constant(lengths, np.int64)]
        self._graph.node.append(helper.make_node("Split", inputs, made, f"{x}_split", axis=4))
        self._channels |= dict.fromkeys(made, 0)
        return made


def _described(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _prior(stride: int) -> np.ndarray:
    """The bias that YOLOs start training with: 8 objects an image, so hardly a box is seen."""
    bias = np.zeros((3, 5 + CLASSES))
    bias[:, 4] = np.log(8 / (SIZE / stride) ** 2)
    bias[:, 5:] = np.log(0.6 / (CLASSES - 1))
    return bias.ravel()


def yolov5(width: float, depth: float) -> onnx.ModelProto:
    """Version 6 and 7 of the repository, by the multiples of channels and of bottlenecks."""
    net = Network()
    w64, w128, w256, w512, w1024 = (int(width * made) for made in (64, 128, 256, 512, 1024))
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

    A dense neck joins all maps of its chains, which are half as wide.
    """
    net = Network()

    def stage(x: str, width: int, made: int) -> str:
        return net.elan(x, width, made, [width] * depth, dense=False)

    def neck(x: str, width: int, made: int) -> str:
        inner = width // 2 if dense_neck else width
        return net.elan(x, width, made, [inner] * depth, dense_neck)

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
    maps = [net.conv(x, made * base, 3) for x, made in ((n8, 8), (n16, 16), (n32, 32))]
    return net.detect(maps, ANCHORS["yolov7"])


ARCHITECTURES: Final[dict[str, Callable[[], onnx.ModelProto]]] = {
    "yolov5n": partial(yolov5, 0.25, 0.33),
    "yolov5s": partial(yolov5, 0.5, 0.33),
    "yolov5m": partial(yolov5, 0.75, 0.67),
    "yolov7": partial(yolov7, 32, 4, dense_neck=True),
    "yolov7x": partial(yolov7, 40, 6, dense_neck=False),
}


@dataclass(frozen=True, slots=True)
class Size:
    """Weights and biases of the convolutions, and their multiplications for one image."""

    parameters: int
    macs: int


def size_of(graph: Graph) -> Size:
    """Counts a graph whose shapes are known."""
    parameters = macs = 0
    for node in graph.nodes:
        if node.op_type == "Conv":
            weight, *bias = (graph.constants[name].dims for name in node.input[1:])
            parameters += int(np.prod(weight)) + sum(int(np.prod(dims)) for dims in bias)
            macs += int(np.prod(graph.shapes[node.output[0]]) * np.prod(weight[1:]))
    return Size(parameters, macs)


@dataclass(frozen=True, slots=True)
class Row:
    """What is told of one model."""

    size: Size
    timed: Bench


def main() -> None:
    arguments = _arguments()
    with progress_bars() as progress:
        rows = {name: _measured(name, arguments, progress) for name in arguments.model}
    hardware = detect()
    runtime = choose_runtime(arguments.device, None, hardware).runtime
    version = hardware.runtimes[runtime].version
    print(f"{runtime} {version}, threads: {arguments.threads}, rounds: {arguments.rounds}\n")
    _print_table(rows, PAPER[DEVICE_OF[runtime]])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", choices=ARCHITECTURES, help="default: all")
    parser.add_argument("--weights", type=Path, help="a real export of the one --model")
    parser.add_argument("--calibration", type=Path, help="images; default: a few that are drawn")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    arguments = parser.parse_args()
    if arguments.weights and len(arguments.model or ()) != 1:
        parser.error("--weights needs one --model that says what it is")
    arguments.model = arguments.model or list(ARCHITECTURES)
    return arguments


def draw_pictures(folder: Path) -> Path:
    """Rectangles on smooth grounds, the same in every run."""
    folder.mkdir()
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(0, 1, 640), np.linspace(0, 1, 480))
    for index in range(PICTURES):
        pixels = (across * down)[..., None] * random.uniform(0, 255, 3)
        for left, top in random.integers(0, 400, (12, 2)):
            pixels[top : top + 80, left : left + 120] = random.uniform(0, 255, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.jpg")
    return folder


def _measured(name: str, arguments: argparse.Namespace, progress: ReportProgress) -> Row:
    """Build one model in a temporary folder and time its variants in turn."""
    with TemporaryDirectory() as home:
        folder = Path(home) / "built"
        folder.mkdir()
        model = arguments.weights or Path(home) / f"{name}.onnx"
        if not arguments.weights:
            onnx.save(ARCHITECTURES[name](), model)
        config = BuildConfig(
            model,
            arguments.calibration or draw_pictures(Path(home) / "pictures"),
            # Random weights see nothing that a float layer could keep.
            min_sqnr=MIN_SQNR if arguments.weights else 0.0,
            device=arguments.device,
            threads=arguments.threads,
        )
        size = size_of(read_float_model(model, SIZE).graph)
        build(config, folder, progress)
        return Row(size, bench(folder, noise(), arguments.rounds, arguments.threads, progress))


def _print_table(rows: Mapping[str, Row], paper: Mapping[str, Mapping[str, float]]) -> None:
    variants = dict.fromkeys(name for row in rows.values() for name in row.timed.variants)
    columns = ["", "parameters M", "GMAC", *(f"{name} ms" for name in variants), "fp32/int8"]
    columns += [f"paper's on {processor}" for processor in paper]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, row in rows.items():
        timed = row.timed.variants
        cells = [name, f"{row.size.parameters / 1e6:.2f}", f"{row.size.macs / 1e9:.2f}"]
        cells += [
            f"{timed[each].infer_ms['p50']:.2f}" if each in timed else "" for each in variants
        ]
        cells.append(f"{row.timed.speedup['int8']:.2f}")
        cells += [f"{ratios[name]:.2f}" if name in ratios else "" for ratios in paper.values()]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
