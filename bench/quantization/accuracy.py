"""qyolo beside NNCF and ONNX Runtime: one model, the same images and runtime, AP and latency.

    .venv/bin/python bench/quantization/accuracy.py MODEL --calibration DIR --images DIR \\
        --annotations FILE [--rounds 200] [--skip PEER] [--reuse] [--json FILE]

The peers are NNCF (its default and its mixed preset) and ONNX Runtime's quantize_static (MinMax,
Entropy, Percentile), each in a pinned environment under runs/. OpenVINO compiles all results alike:
float layers of an int8 model run in bfloat16 or float16 where the processor has it, as OpenVINO
does by default, and the float model is measured in that type too. The variants of qyolo read bytes
and end at their maps; the peers and the row "fp32, whole graph" are the exporter's graph, whose
output the server decodes. Prints COCO AP; median milliseconds from an image's bytes in the model's
square to candidate boxes above the default threshold (the engine, and the decoding), timed
alternately; and seconds and peak MiB of quantizing. A quantizer that fails is listed with its exit
code. --skip leaves a peer out (Entropy and Percentile take 13 GiB and more); --reuse measures what
the last run quantized.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from bench.command_line import dataset_parser, print_header, print_row
from bench.peers.environments import (
    RUNS,
    Finished,
    measured,
    quantize_nncf,
    quantize_onnxruntime,
    save_openvino,
)
from bench.quantization.candidate_times import CandidateTimes, read_canvases, time_candidates
from quantizer.calibration.images import ImageFiles, find_images
from quantizer.evaluation.accuracy import Evaluation, evaluate
from quantizer.model.float_model import read_float_model
from quantizer.model.layout import recognise
from qyolo.cli.progress import progress_bars
from service.folder_cache import publish
from service.manifest import FloatType, Manifest, Variant, read_manifest, write_manifest
from service.vision.input_size import InputSize

WHOLE: Final = "fp32, whole graph"
REFERENCES: Final = {"fp32 = 1": "fp32", "bf16 = 1": "bf16", "NNCF = 1": "NNCF default"}
TIMED_IMAGES: Final = 16
QYOLO: Final = {
    "qyolo, default": (),
    "qyolo, all int8": ("--min-sqnr", "0"),
    "qyolo, UH only": (
        *("--no-bias-correction", "--no-adaptive-rounding", "--no-equalisation"),
        *("--min-sqnr", "0"),
    ),
}
NNCF: Final = {f"NNCF {preset}": preset for preset in ("default", "mixed")}
ONNXRUNTIME: Final = {
    f"ONNX Runtime {method}": method for method in ("MinMax", "Entropy", "Percentile")
}
SIZE: Final = InputSize(640, 640)

Costs = dict[str, dict[str, float] | str]  # of quantizing, or why it failed


def main() -> None:
    parser = dataset_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--skip", action="append", default=[], choices=(*NNCF, *ONNXRUNTIME))
    parser.add_argument("--reuse", action="store_true", help="what the last run quantized")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    folder = RUNS / f"accuracy-{arguments.model.stem}"
    if not arguments.reuse:
        publish(folder.resolve(), lambda staging: _build_all(arguments, staging))
    manifest = read_manifest(folder)
    canvases = read_canvases(find_images(arguments.images)[:TIMED_IMAGES], manifest)
    with progress_bars() as progress:
        accuracy = evaluate(folder, arguments.images, arguments.annotations, 0, progress)
        times = time_candidates(folder, manifest, canvases, arguments.rounds, progress)
    costs = json.loads((folder / "costs.json").read_text())
    print(f"\n{accuracy.model}, {accuracy.images} images, {arguments.rounds} rounds\n")
    _print_table(accuracy, times, costs)
    if arguments.json:
        result = {
            "accuracy": dataclasses.asdict(accuracy),
            "latency": {name: dataclasses.asdict(each) for name, each in times.items()},
            "costs": costs,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def _build_all(arguments: argparse.Namespace, folder: Path) -> None:
    """One model folder with every result as a variant, and costs.json."""
    costs: Costs = {}
    manifest, variants = _build_qyolo(arguments, folder, costs)
    variants[WHOLE] = Variant(runtime="openvino", precision="fp32", model="fp32/raw.xml")
    float_type = _lower_float_type(variants)
    _write_inputs(arguments, folder)
    for name in [each for each in (*NNCF, *ONNXRUNTIME) if each not in arguments.skip]:
        (folder / name).mkdir()
        try:
            done = _quantize(name, folder)
        except subprocess.CalledProcessError as exc:
            costs[name] = f"failed with exit code {exc.returncode}"
            continue
        costs[name] = _cost(done)
        variants[name] = Variant(
            runtime="openvino", precision="int8", float_type=float_type, model=f"{name}/model.xml"
        )
    for input_file in ("tensors.npy", "float.onnx"):
        (folder / input_file).unlink()
    (folder / "costs.json").write_text(json.dumps(costs))
    changes = {"variants": variants, "default": "fp32", "rejected": {}}
    write_manifest(folder, manifest.model_copy(update=changes))


def _build_qyolo(
    arguments: argparse.Namespace, folder: Path, costs: Costs
) -> tuple[Manifest, dict[str, Variant]]:
    """The float variants and an int8 one for each of QYOLO."""
    home = RUNS / "part"
    command = [sys.executable, "-m", "qyolo", "build", str(arguments.model), "--out", str(home)]
    command += ["--calibration", str(arguments.calibration)]
    variants: dict[str, Variant] = {}
    for name, options in QYOLO.items():
        costs[name] = _cost(measured([*command, *options]))
        manifest = read_manifest(home)
        if not variants:
            for precision in [each for each in manifest.variants if each != "int8"]:
                variants[precision] = _move(home, manifest.variants[precision], folder, precision)
        int8 = _move(home, manifest.variants["int8"], folder, name)
        variants[name] = int8.model_copy(update={"float_type": _lower_float_type(variants)})
    return manifest, variants


def _move(source: Path, variant: Variant, folder: Path, name: str) -> Variant:
    """Move an engine into the common folder without its blob, so that all compile alike."""
    home = folder / name
    home.mkdir()
    for stem, file in (("model", variant.model), ("raw", variant.raw)):
        for suffix in (".xml", ".bin"):
            (source / str(file)).with_suffix(suffix).rename(home / f"{stem}{suffix}")
    projections = None
    if variant.projections is not None:
        left = source / variant.projections
        projections = f"{name}/{left.rename(home / left.name).name}"
    return Variant(
        runtime="openvino",
        precision=variant.precision,
        float_type=variant.float_type,
        model=f"{name}/model.xml",
        raw=f"{name}/raw.xml",
        projections=projections,
    )


def _write_inputs(arguments: argparse.Namespace, folder: Path) -> None:
    """tensors.npy and float.onnx, which the peers read."""
    model = read_float_model(arguments.model, SIZE)
    preprocess = recognise(model).preprocess
    files = ImageFiles(find_images(arguments.calibration), SIZE, preprocess)
    tensors = list(files.decodable())
    np.save(folder / "tensors.npy", np.concatenate(tensors))
    onnx.save(model.model, folder / "float.onnx")


def _quantize(name: str, folder: Path) -> Finished:
    """Write model.xml with a peer, in the folder of that name."""
    tensors, home = folder / "tensors.npy", folder / name
    if name in NNCF:
        return quantize_nncf(folder / "fp32/raw.xml", tensors, home / "model.xml", NNCF[name])
    made = home / "model.onnx"
    done = quantize_onnxruntime(folder / "float.onnx", tensors, made, ONNXRUNTIME[name])
    save_openvino(made, home / "model.xml")
    return done


def _lower_float_type(variants: Mapping[str, Variant]) -> FloatType:
    """bf16 or f16 if a variant is in it, else f32."""
    return next((v.float_type for v in variants.values() if v.float_type != "f32"), "f32")


def _cost(done: Finished) -> dict[str, float]:
    return {"seconds": done.seconds, "peak_mib": done.peak_mib}


def _print_table(accuracy: Evaluation, times: Mapping[str, CandidateTimes], costs: Costs) -> None:
    fp32 = accuracy.variants["fp32"].ap
    references = {title: times[name] for title, name in REFERENCES.items() if name in times}
    latencies = ("engine ms", "decode ms", "bytes to candidates ms")
    print_header(
        *("", "AP", "AP50", "against fp32", *latencies),
        *(f"speed: {title}" for title in references),
        *("build s", "MiB"),
    )
    for name, scores in accuracy.variants.items():
        taken, cost = times[name], costs.get(name)
        spent = (cost["seconds"], cost["peak_mib"]) if isinstance(cost, dict) else ()
        print_row(
            *(name, f"{scores.ap:.4f}", f"{scores.ap50:.4f}", f"{scores.ap - fp32:+.4f}"),
            *(f"{taken.engine_ms:.2f}", f"{taken.decode_ms:.2f}", f"{taken.total_ms:.2f}"),
            *(f"{each.total_ms / taken.total_ms:.2f}" for each in references.values()),
            *([f"{each:.0f}" for each in spent] or ["", ""]),
        )
    for name, cost in costs.items():
        if isinstance(cost, str):
            print_row(name, cost, *[""] * (7 + len(references)))


if __name__ == "__main__":
    main()
