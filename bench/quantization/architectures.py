"""The speed table of the Q-YOLO paper on this machine: YOLOv5 and YOLOv7, float beside int8.

    .venv/bin/python bench/quantization/architectures.py [--model yolov5s] [--rounds 100]

Speed does not depend on the values of the weights, so the published architectures are built with
random ones (`quantizer/study/networks.py`); `--weights FILE` times a real export of the one
`--model` instead. Without `--calibration`, drawn images are used. Prints the size of each model,
the median milliseconds of the engine for each variant, timed alternately, and fp32 over int8 beside
the paper's.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnx
from PIL import Image

from bench.command_line import parser_of, print_header, print_row
from quantizer.build import build
from quantizer.compile.hardware import Installed, detect
from quantizer.compile.runtime import choose_runtime
from quantizer.config import BuildConfig
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from quantizer.study.networks import ARCHITECTURES, SIZE
from qyolo.bench import Bench, bench, noise
from qyolo.cli.progress import progress_bars
from service.engines.cpu import usable_threads
from service.manifest import DEVICE_OF
from service.progress import ReportProgress
from service.vision.input_size import InputSize

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
PICTURES: Final = 8  # drawn if no calibration images are given


@dataclass(frozen=True, slots=True)
class Size:
    """Weights and biases of the convolutions, and their multiplications for one image."""

    parameters: int
    macs: int


def size_of(graph: Graph) -> Size:
    """Needs a graph with known shapes."""
    parameters = macs = 0
    for node in graph.nodes:
        if node.op_type == "Conv":
            weight, *bias = (graph.constants[name].dims for name in node.input[1:])
            parameters += int(np.prod(weight)) + sum(int(np.prod(dims)) for dims in bias)
            macs += int(np.prod(graph.shapes[node.output[0]]) * np.prod(weight[1:]))
    return Size(parameters, macs)


def main() -> None:
    arguments = _arguments()
    with progress_bars() as progress:
        rows = {name: _measured(name, arguments, progress) for name in arguments.model}
    hardware = detect()
    runtime = choose_runtime(arguments.device, None, hardware).runtime
    installed = hardware.runtimes[runtime]
    assert isinstance(installed, Installed)
    print(
        f"{runtime} {installed.version}, threads: {arguments.threads}, rounds: {arguments.rounds}\n"
    )
    _print_table(rows, PAPER[DEVICE_OF[runtime]])


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--model", action="append", choices=ARCHITECTURES, help="default: all")
    parser.add_argument("--weights", type=Path, help="a real export of the one --model")
    parser.add_argument("--calibration", type=Path, help="folder of images")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    arguments = parser.parse_args()
    if arguments.weights and len(arguments.model or ()) != 1:
        parser.error("--weights needs exactly one --model, its architecture")
    arguments.model = arguments.model or list(ARCHITECTURES)
    return arguments


def draw_pictures(folder: Path) -> Path:
    """Rectangles on smooth backgrounds, the same in every run."""
    folder.mkdir()
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(0, 1, 640), np.linspace(0, 1, 480))
    for index in range(PICTURES):
        pixels = (across * down)[..., None] * random.uniform(0, 255, 3)
        for left, top in random.integers(0, 400, (12, 2)):
            pixels[top : top + 80, left : left + 120] = random.uniform(0, 255, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.jpg")
    return folder


def _measured(
    name: str, arguments: argparse.Namespace, progress: ReportProgress
) -> tuple[Size, Bench]:
    """Build one model in a temporary folder and time its variants alternately."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "built"
        folder.mkdir()
        model = arguments.weights or Path(scratch) / f"{name}.onnx"
        if not arguments.weights:
            onnx.save(ARCHITECTURES[name](), model)
        config = BuildConfig(
            model,
            arguments.calibration or draw_pictures(Path(scratch) / "pictures"),
            # With random weights there is no accuracy to keep by float layers.
            min_sqnr=None if arguments.weights else 0.0,
            device=arguments.device,
            threads=arguments.threads,
        )
        size = size_of(read_float_model(model, InputSize.of(SIZE)).graph)
        build(config, folder, progress)
        return size, bench(folder, noise(), arguments.rounds, arguments.threads, progress)


def _print_table(
    rows: Mapping[str, tuple[Size, Bench]], paper: Mapping[str, Mapping[str, float]]
) -> None:
    variants = dict.fromkeys(name for _, timed in rows.values() for name in timed.variants)
    times = (f"{name} ms" for name in variants)
    ratios = (f"paper's on {processor}" for processor in paper)
    print_header("", "parameters M", "GMAC", *times, "fp32/int8", *ratios)
    for name, (size, timed) in rows.items():
        latencies = timed.variants
        print_row(
            *(name, f"{size.parameters / 1e6:.2f}", f"{size.macs / 1e9:.2f}"),
            *(
                f"{latencies[variant].infer_ms['p50']:.2f}" if variant in latencies else ""
                for variant in variants
            ),
            f"{timed.speedup['int8']:.2f}",
            *(f"{ratios[name]:.2f}" if name in ratios else "" for ratios in paper.values()),
        )


if __name__ == "__main__":
    main()
