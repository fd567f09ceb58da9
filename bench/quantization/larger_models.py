"""What int8 costs detectors with other weights, and larger ones, than the official nano models.

    .venv/bin/python bench/quantization/larger_models.py --calibration DIR --images DIR \\
        [--model NAME] [--rounds 50]

The weights come with packages of the registry; they are downloaded into runs/ and never shipped:

- `helmets`: YOLOv12m, helmets (helmet-detector; AGPL-3.0 as all of YOLOv12). PyTorch weights, which
  an environment with Ultralytics exports; loading them runs code that is in them.
- `captcha`: a YOLOX of 5 million weights, characters and symbols in captchas (ddddocr).
- `bodies`: YOLOv8n at 320 pixels, 18 classes of faces and body parts (nudenet; AGPL-3.0).

Builds each with default options and prints how many layers stay float, the predicted loss of
detections, the boxes of fp32 and how far int8 agrees with them (on images held out from the
calibration, and on a second folder), the median milliseconds of the engines, and the seconds of the
build by stage. Photos without a model's classes give few boxes: read the agreement beside their
number.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.command_line import parser_of, print_header, print_row
from bench.peers.environments import RUNS, Finished, export_ultralytics, measured, packaged_file
from quantizer.calibration.images import find_images
from quantizer.evaluation.comparison import compare_variants
from quantizer.evaluation.detectors import open_variants
from qyolo.bench import bench, noise
from qyolo.cli.progress import progress_bars
from service.engines.cpu import usable_threads
from service.manifest import REPORT, read_manifest
from service.progress import ReportProgress
from service.vision.agreement import Agreement

STAGES: Final = ("equalise", "calibrate", "round", "precision", "compile", "time", "compare")


@dataclass(frozen=True, slots=True)
class Published:
    """A detector in a package: `file` of `package`, and the size at which it was trained."""

    package: str
    file: str
    size: int

    def model(self, name: str) -> Path:
        """Its ONNX file; downloaded and exported once."""
        file = packaged_file(self.package, self.file)
        if file.suffix == ".onnx":
            return file
        return export_ultralytics(file, RUNS / f"{name}.onnx")


MODELS: Final = {
    "helmets": Published("helmet-detector==2.1.0", "helmet_detector_pkg/weights/best.pt", 640),
    "captcha": Published("ddddocr==1.6.1", "ddddocr/common_det.onnx", 416),
    "bodies": Published("nudenet==3.4.2", "nudenet/320n.onnx", 320),
}


@dataclass(frozen=True, slots=True)
class Result:
    """The build's report and its cost; int8 beside fp32 by folder; milliseconds by variant."""

    report: dict[str, Any]
    cost: Finished
    agreements: dict[str, Agreement]
    ms: dict[str, float]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--calibration", type=Path, required=True, help="folder of images")
    parser.add_argument("--images", type=Path, required=True, help="a second folder of images")
    parser.add_argument("--model", action="append", choices=MODELS, help="default: all")
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    with progress_bars() as progress:
        results = {name: _measured(name, arguments, progress) for name in arguments.model or MODELS}
    _print_decisions(results)
    _print_agreements(results)
    _print_latencies(results)
    _print_stages(results)


def _measured(name: str, arguments: argparse.Namespace, progress: ReportProgress) -> Result:
    published, folder = MODELS[name], RUNS / f"larger-{name}"
    command = [sys.executable, "-m", "qyolo", "build", str(published.model(name))]
    command += ["--out", str(folder), "--size", str(published.size)]
    command += ["--calibration", str(arguments.calibration)]
    cost = measured(command)
    report = json.loads((folder / REPORT).read_text())
    manifest, threads = read_manifest(folder), usable_threads()
    with open_variants(folder, manifest, threads) as detectors:
        compared = compare_variants(detectors, find_images(arguments.images), progress)
    timed = bench(folder, noise(), arguments.rounds, threads, progress)
    return Result(
        report=report,
        cost=cost,
        agreements={
            "held out": Agreement(**report["agreement"]["with_fp32"]["int8"]),
            "second folder": compared.agreements["int8"],
        },
        ms={variant: each.infer_ms["p50"] for variant, each in timed.variants.items()},
    )


def _print_decisions(results: Mapping[str, Result]) -> None:
    print_header("", "head", "size", "layers", "float", "predicted loss", "executions", "default")
    for name, result in results.items():
        model, search = result.report["model"], result.report["sensitivity"]
        layers = result.report["layers"]
        floats = [each for each in layers if each["planned"] == "float"]
        found: tuple[object, object] = ("nothing detected", "")
        if search is not None:
            found = (f"{search['frontier'][-1]['loss']:.3f}", search["executions"])
        print_row(
            *(name, model["head"], model["size"], len(layers), len(floats)),
            *(*found, result.report["default"]),
        )
    print()


def _print_agreements(results: Mapping[str, Result]) -> None:
    print_header("", "images", "boxes fp32", "boxes int8", "matched", "IoU", "score difference")
    for name, result in results.items():
        for folder, each in result.agreements.items():
            print_row(
                *(f"{name}, {folder}", each.images, each.boxes_a, each.boxes_b),
                *(f"{each.matched:.3f}", f"{each.mean_iou:.3f}"),
                f"{each.mean_score_difference:.3f}",
            )
    print()


def _print_latencies(results: Mapping[str, Result]) -> None:
    variants = dict.fromkeys(variant for result in results.values() for variant in result.ms)
    print_header("", *(f"{variant} ms" for variant in variants), "fp32 / int8")
    for name, result in results.items():
        times = (f"{result.ms[each]:.2f}" if each in result.ms else "" for each in variants)
        print_row(name, *times, f"{result.ms['fp32'] / result.ms['int8']:.2f}")
    print()


def _print_stages(results: Mapping[str, Result]) -> None:
    """Of a stage with several parts, as the engines to compile, their sum."""
    print_header("seconds", *STAGES, "whole process", "peak MiB")
    for name, result in results.items():
        seconds = result.report["seconds"]
        parts = (
            sum(took for part, took in seconds.items() if part.split()[0] == stage)
            for stage in STAGES
        )
        whole = (f"{result.cost.seconds:.1f}", f"{result.cost.peak_mib:.0f}")
        print_row(name, *(f"{part:.1f}" for part in parts), *whole)


if __name__ == "__main__":
    main()
