"""Time and memory of calibration, beside NNCF and bare execution.

    .venv/bin/python bench/quantization/calibration.py MODEL --calibration DIR

Time: all start from a model and image tensors in memory, so that reading and decoding are not
timed: statistics, ranges, bias correction, the quantized graph, its OpenVINO engine. Left out is
what NNCF does not do: the search for sensitive layers, the other variants, the accuracy gate. Each
is measured in three rounds; prints the median of milliseconds an image and of seconds in all.

Memory: MiB of peak resident memory for the statistics of 50 and of 500 images (those of DIR are
repeated), each in a process of its own. The ratio is about 1 if activations are not kept.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from bench.command_line import parser_of, print_header, print_row
from bench.peers.environments import measured, quantize_nncf, save_openvino
from quantizer.calibration.images import ImageFiles, find_images
from quantizer.calibration.statistics import Statistics, observe
from quantizer.compile.builder import Candidate
from quantizer.compile.load import load_builder
from quantizer.int8 import Range, Scheme
from quantizer.model.execution import open_session
from quantizer.model.float_model import FloatModel, read_float_model
from quantizer.model.graph import Graph
from quantizer.model.layout import recognise
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.placement import Placement, plan_placement
from quantizer.qdq.quantize import Ranges, quantize
from quantizer.qdq.weights import Weights
from service.engines.cpu import usable_threads
from service.vision.input_size import InputSize
from service.vision.preprocess import Preprocess

FORWARD: Final = "the bare forward pass"
PRESETS: Final = ("default", "mixed")
ROUNDS: Final = 3
COUNTS: Final = (50, 500)
SIZE: Final = InputSize(640, 640)


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds an image in statistics; seconds from the float model to an int8 engine."""

    statistics_ms: float
    total_s: float


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("model", type=Path, help="float YOLO, ONNX")
    parser.add_argument("--calibration", type=Path, required=True, help="folder of images")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model = read_float_model(arguments.model, SIZE)
    paths = find_images(arguments.calibration)
    if arguments.count:  # in the process whose memory is measured
        repeated = itertools.islice(itertools.cycle(paths), arguments.count)
        _statistics(model.graph, _tensors(model, list(repeated)))
        return
    _print_times(arguments.model.stem, model, np.concatenate(list(_tensors(model, paths))))
    print()
    _print_memory()


def _tensors(model: FloatModel, paths: list[Path]) -> Iterable[np.ndarray]:
    """f32[1,3,S,S] of each decodable image."""
    preprocess = recognise(model).preprocess
    return ImageFiles(paths, SIZE, preprocess).decodable()


def _statistics(graph: Graph, tensors: Iterable[np.ndarray]) -> tuple[Placement, Statistics]:
    placement = plan_placement(graph)
    averaged = averaged_tensors(graph, placement)
    return placement, observe(graph, placement.tensors, tensors, usable_threads(), averaged)


def _print_memory() -> None:
    peaks = []
    for count in COUNTS:
        done = measured([sys.executable, __file__, *sys.argv[1:], "--count", str(count)])
        peaks.append(done.peak_mib)
        print(f"{count} images: peak {done.peak_mib:.0f} MiB")
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


def _print_times(model_name: str, model: FloatModel, tensors: np.ndarray) -> None:
    preprocess = recognise(model).preprocess
    with TemporaryDirectory() as scratch:
        home = Path(scratch)
        np.save(home / "tensors.npy", tensors)
        save_openvino(model.model.SerializeToString(), home / "model.xml")
        rounds = [_measure(model.graph, preprocess, tensors, home) for _ in range(ROUNDS)]
    print(f"\n{model_name}, {len(tensors)} images\n")
    print_header("", "statistics, ms an image", "forward passes", "to a compiled engine, s")
    forward = median(times[FORWARD].statistics_ms for times in rounds)
    for name in rounds[0]:
        statistics = median(times[name].statistics_ms for times in rounds)
        total = median(times[name].total_s for times in rounds)
        print_row(name, f"{statistics:.1f}", f"{statistics / forward:.2f}", f"{total:.1f}")


def _measure(
    graph: Graph, preprocess: Preprocess, tensors: np.ndarray, home: Path
) -> dict[str, Times]:
    times = {
        FORWARD: Times(_time_forward(graph, tensors), 0.0),
        "qyolo": _time_qyolo(graph, preprocess, tensors, home),
    }
    for preset in PRESETS:
        files = (home / "model.xml", home / "tensors.npy", home / f"{preset}.xml")
        seconds = quantize_nncf(*files, preset).output
        times[f"NNCF {preset}"] = Times(
            seconds["statistics_s"] / len(tensors) * 1000,
            seconds["quantize_s"] + seconds["compile_s"],
        )
    return times


def _time_forward(graph: Graph, tensors: np.ndarray) -> float:
    """Milliseconds an image."""
    session = open_session(graph.model, usable_threads())
    session.run(None, {graph.input: tensors[:1]})
    start = time.perf_counter()
    for tensor in tensors:
        session.run(None, {graph.input: tensor[None]})
    return (time.perf_counter() - start) / len(tensors) * 1000


def _time_qyolo(graph: Graph, preprocess: Preprocess, tensors: np.ndarray, home: Path) -> Times:
    start = time.perf_counter()
    placement, observed = _statistics(graph, (tensor[None] for tensor in tensors))
    statistics_s = time.perf_counter() - start
    image_range = Range(0.0, 255 / preprocess.divisor)
    ranges = Ranges(graph, observed.histograms, "uh", Scheme(), image_range)
    quantized = quantize(graph, placement, ranges, Weights(graph), observed.channel_means)
    with TemporaryDirectory(dir=home) as engine:
        builder = load_builder("openvino", usable_threads())
        builder.build(Candidate("int8", quantized.model), Path(engine))
    return Times(statistics_s / len(tensors) * 1000, time.perf_counter() - start)


if __name__ == "__main__":
    main()
