"""What the statistics of the calibration take, beside the bare forward pass and NNCF's.

    .venv/bin/python bench/calibration_time.py MODEL --calibration DIR

Timed on tensors in memory, so that decoding images counts for nobody; all take turns, and the
median turn is told.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import openvino as ov
import peers

from quantizer.bias import averaged_tensors
from quantizer.calibration import Images, find_images
from quantizer.execution import open_session
from quantizer.float_model import read_float_model
from quantizer.graph import Graph
from quantizer.layout import recognise
from quantizer.observe import observe
from quantizer.placement import plan_placement
from service.cpu import usable_threads
from service.preprocess import PREPROCESS

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
        turns = [_turn(model.graph, tensors, home) for _ in range(TURNS)]
    times = {name: median(turn[name] for turn in turns) for name in turns[0]}
    print(f"\n{arguments.model.stem}, {len(tensors)} images\n")
    print("| statistics | ms an image | forward passes |\n|---|---|---|")
    for name, value in times.items():
        print(f"| {name} | {value:.1f} | {value / times['forward pass']:.2f} |")


def _turn(graph: Graph, tensors: np.ndarray, home: Path) -> dict[str, float]:
    """Milliseconds an image of each."""
    times = {
        "forward pass": _time_forward(graph, tensors),
        "qyolo": _time_observation(graph, tensors),
    }
    for preset in PRESETS:
        files = (home / "model.xml", home / "tensors.npy", home / f"{preset}.xml")
        done = peers.nncf(*map(str, files), preset)
        times[f"NNCF {preset}"] = done.said["statistics_s"] / len(tensors) * 1000
    return times


def _time_forward(graph: Graph, tensors: np.ndarray) -> float:
    session = open_session(graph.model, usable_threads())
    session.run(None, {graph.input: tensors[:1]})
    start = time.perf_counter()
    for tensor in tensors:
        session.run(None, {graph.input: tensor[None]})
    return (time.perf_counter() - start) / len(tensors) * 1000


def _time_observation(graph: Graph, tensors: np.ndarray) -> float:
    placement = plan_placement(graph)
    averaged = averaged_tensors(graph, placement)
    start = time.perf_counter()
    images = (tensor[None] for tensor in tensors)
    observe(graph, placement.tensors, images, usable_threads(), averaged)
    return (time.perf_counter() - start) / len(tensors) * 1000


if __name__ == "__main__":
    sys.exit(main())
