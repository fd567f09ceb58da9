"""Does the loss that the build predicts rank candidates as AP does?

    .venv/bin/python bench/quantization/ranking.py MODEL --calibration DIR --images DIR \\
        --annotations FILE

Quantizes a detector in several ways (range rules, with and without bias correction, weights of 8
and 7 bits, sets of float layers), predicts the loss of detections of each on calibration images, as
a build does, and measures its AP on the annotated ones. Prints both, the SQNR that the search for
sensitive layers uses, and Spearman's rank correlation of each with the AP. ONNX Runtime executes
the Q/DQ graphs.
"""

import argparse
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from bench.command_line import dataset_parser, print_header, print_row
from quantizer.calibration.images import ImageFiles, find_images
from quantizer.calibration.ranges import RangeRule
from quantizer.calibration.statistics import calibrate
from quantizer.config import AnnotatedDataset
from quantizer.evaluation.accuracy import evaluate_detectors
from quantizer.evaluation.detectors import describe, graph_detector
from quantizer.int8 import Range, Scheme, WeightScheme
from quantizer.model.layout import FloatDetector, read_detector
from quantizer.model.map_layout import Maps, recognise_maps
from quantizer.model.serving_graph import ended_at
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.quantize import Ranges
from quantizer.qdq.weights import Weights
from quantizer.sensitivity.simulation import Simulation, find_samples
from quantizer.sensitivity.sqnr import Reading, decibels
from quantizer.study.calibrated import first_and_last
from service.engines.cpu import usable_threads
from service.vision.input_size import InputSize

SIZE: Final = InputSize(640, 640)


def main() -> None:
    arguments = dataset_parser(__doc__).parse_args()
    threads = usable_threads()
    detector = read_detector(arguments.model, SIZE)
    maps = recognise_maps(detector.graph, detector.layout.head, SIZE)
    if not isinstance(maps, Maps):
        raise SystemExit(f"{arguments.model.name}: {maps.reason}")
    manifest = describe(arguments.model, detector)
    annotated = AnnotatedDataset(arguments.images, arguments.annotations)

    def ap_of(model: onnx.ModelProto) -> float:
        engine = graph_detector(model, manifest, threads)
        measured = evaluate_detectors({"one": engine}, manifest, annotated, lambda _: None)
        return measured.variants["one"].ap

    print_header("candidate", "predicted loss", "SQNR dB", "AP", "against fp32")
    float_ap = ap_of(detector.model)
    print_row("fp32", "0", "", f"{float_ap:.4f}", "")
    rows = []
    for name, simulation, kept_float in _candidates(arguments, detector, maps, threads):
        placement = plan_placement(detector.graph, kept_float)
        loss, noise = simulation.loss(placement), simulation.noise(placement)
        ap = ap_of(simulation.quantized(placement).model)
        rows.append((loss, noise, float_ap - ap))
        figures = (f"{loss:.4f}", f"{decibels(noise):.1f}", f"{ap:.4f}", f"{ap - float_ap:+.4f}")
        print_row(name, *figures)
    losses, noises, drops = map(np.array, zip(*rows, strict=True))
    print(f"\nrank correlation with the drop of AP: predicted loss {_spearman(losses, drops):.2f}, "
          f"noise {_spearman(noises, drops):.2f}")  # fmt: skip


def _candidates(
    arguments: argparse.Namespace, detector: FloatDetector, maps: Maps, threads: int
) -> Iterator[tuple[str, Simulation, Mapping[str, str]]]:
    """The name of each, its simulation, and the layers that it keeps float with the reasons."""
    graph, preprocess = detector.graph, detector.preprocess
    every = plan_placement(graph)
    files = ImageFiles(find_images(arguments.calibration), SIZE, preprocess)
    statistics = calibrate(
        graph, every.tensors, averaged_tensors(graph, every), files, threads, lambda _: None
    ).statistics
    reading = Reading.of(detector.head, SIZE, maps.layout)
    samples = find_samples(
        ended_at(detector.model, maps),
        reading,
        replace(files, paths=files.paths[::3]).decodable(),
        threads,
    )

    def simulation(rule: RangeRule = "uh", bits: int = 8, corrected: bool = True) -> Simulation:
        image = Range(0.0, 255 / preprocess.divisor)
        ranges = Ranges(graph, statistics.histograms, rule, Scheme(), image)
        weights = Weights(graph, WeightScheme(bits=bits))
        means = statistics.channel_means if corrected else None
        return Simulation(graph, ranges, weights, means, samples, threads, maps)

    yield "UH", simulation(), {}
    yield "UH, first and last float", simulation(), first_and_last(graph)
    chosen = random.Random(0)
    for number in (1, 2):
        third = chosen.sample(every.layers, len(every.layers) // 3)
        yield f"UH, a third float ({number})", simulation(), dict.fromkeys(third, "random")
    yield "UH, no bias correction", simulation(corrected=False), {}
    yield "UH, weights of 7 bits", simulation(bits=7), {}
    yield "UH, weights of 6 bits", simulation(bits=6), {}
    yield "MinMax", simulation("minmax"), {}
    yield "percentile", simulation("percentile"), {}


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    first, second = (each.argsort().argsort() - (len(each) - 1) / 2 for each in (a, b))
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


if __name__ == "__main__":
    main()
