"""What calibrating takes, and quantizing and compiling after it, beside NNCF and bare execution.

    .venv/bin/python bench/calibration_time.py MODEL --calibration DIR

Timed on a model and tensors in memory, so that reading and decoding count for nobody: observing,
ranges or their like, corrected biases, the quantized graph, its engine. Not what NNCF leaves out:
the search for the layers that hurt, the other variants, the guards. All take turns, and the median
turn is told.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import openvino as ov
import peers

from quantizer.calibration.images import Images, find_images
from quantizer.calibration.statistics import observe
from quantizer.compile.builder import Candidate
from quantizer.compile.runtime import load_builder
from quantizer.int8 import Range, Scheme
from quantizer.model.execution import open_session
from quantizer.model.float_model import FloatModel, read_float_model
from quantizer.model.graph import Graph
from quantizer.model.layout import recognise
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.quantize import Ranges, quantize
from quantizer.qdq.weights import Weights
from service.engines.cpu import usable_threads
from service.vision.preprocess import PREPROCESS, Preprocess

PRESETS = ("default", "mixed")
TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    arguments = parser.parse_args()
    model = read_float_model(arguments.model, 640)
    how = PREPROCESS[recognise(model).preprocess]
    found = Images(find_images(arguments.calibration)).tensors(640, how)
    tensors = np.concatenate([tensor for tensor in found if tensor is not None])
    with TemporaryDirectory() as scratch:
        home = Path(scratch)
        np.save(home / "tensors.npy", tensors)
        network = ov.Core().read_model(model.model.SerializeToString())
        ov.save_model(network, home / "model.xml", compress_to_fp16=False)
        turns = [_turn(model, how, tensors, home) for _ in range(TURNS)]
    print(f"\n{arguments.model.stem}, {len(tensors)} images\n")
    print("| | statistics, ms an image | forward passes | to a compiled engine, s |")
    print("|---|---|---|---|")
    for name in turns[0]:
        statistics = median(turn[name].statistics_ms for turn in turns)
        forward = median(turn["the bare forward pass"].statistics_ms for turn in turns)
        whole = median(turn[name].whole_s for turn in turns)
        print(f"| {name} | {statistics:.1f} | {statistics / forward:.2f} | {whole:.1f} |")


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds an image in statistics; seconds from the float model to an int8 engine."""

    statistics_ms: float
    whole_s: float


def _turn(model: FloatModel, how: Preprocess, tensors: np.ndarray, home: Path) -> dict[str, Times]:
    times = {
        "the bare forward pass": Times(_time_forward(model.graph, tensors), 0.0),
        "qyolo": _time_qyolo(model.graph, how, tensors, home),
    }
    for preset in PRESETS:
        files = (home / "model.xml", home / "tensors.npy", home / f"{preset}.xml")
        said = peers.nncf(*map(str, files), preset).said
        times[f"NNCF {preset}"] = Times(
            said["statistics_s"] / len(tensors) * 1000, said["quantize_s"] + said["compile_s"]
        )
    return times


def _time_forward(graph: Graph, tensors: np.ndarray) -> float:
    session = open_session(graph.model, usable_threads())
    session.run(None, {graph.input: tensors[:1]})
    start = time.perf_counter()
    for tensor in tensors:
        session.run(None, {graph.input: tensor[None]})
    return (time.perf_counter() - start) / len(tensors) * 1000


def _time_qyolo(graph: Graph, how: Preprocess, tensors: np.ndarray, home: Path) -> Times:
    threads = usable_threads()
    start = time.perf_counter()
    placement = plan_placement(graph)
    averaged = averaged_tensors(graph, placement)
    images = (tensor[None] for tensor in tensors)
    observed = observe(graph, placement.tensors, images, threads, averaged)
    statistics = time.perf_counter() - start
    image_range = Range(0.0, 255 / how.divisor)
    ranges = Ranges(graph, observed.histograms, "uh", Scheme(), image_range)
    made = quantize(graph, placement, ranges, Weights(graph), observed.channel_means)
    with TemporaryDirectory(dir=home) as engine:
        load_builder("openvino", threads).build(Candidate("int8", made.model), Path(engine))
    whole = time.perf_counter() - start
    return Times(statistics / len(tensors) * 1000, whole)


if __name__ == "__main__":
    sys.exit(main())
