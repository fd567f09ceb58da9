"""qyolo beside its peers: one model, the same images and engine, accuracy and latency in turns.

    .venv/bin/python bench/accuracy.py MODEL --calibration DIR --images DIR --annotations FILE

Peers are NNCF (its default and its mixed preset) and ONNX Runtime's quantize_static (MinMax,
Entropy, Percentile), each in a pinned venv under runs/. Whatever they write is compiled by OpenVINO
alike: what is float in an int8 model runs in bfloat16 or float16 where the processor has it, as
OpenVINO does by itself, and the float model is there in that type too. A candidate that fails is
told as such.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import peers

from quantizer.calibration.images import Images, find_images
from quantizer.evaluation.accuracy import Evaluation, evaluate
from quantizer.model.float_model import read_float_model
from quantizer.model.layout import recognise
from qyolo.bench import Bench, bench, noise
from qyolo.cli.progress import progress_bars
from service.folder_cache import publish
from service.manifest import FloatType, Manifest, Variant, read_manifest, write_manifest
from service.vision.preprocess import PREPROCESS

REFERENCE = "NNCF default"
QYOLO = {
    "qyolo, the default": (),
    "qyolo, UH alone": ("--no-bias-correction", "--min-sqnr", "0"),
}


def main() -> None:
    arguments = _arguments()
    folder = peers.RUNS / f"accuracy-{arguments.model.stem}"
    publish(folder.resolve(), lambda staging: _build_all(arguments, staging))
    with progress_bars() as progress:
        accuracy = evaluate(folder, arguments.images, arguments.annotations, 0, progress)
        latency = bench(folder, noise(), arguments.rounds, 0, progress)
    costs = json.loads((folder / "costs.json").read_text())
    _print_table(accuracy, latency, costs)
    if arguments.json:
        result = {
            "accuracy": dataclasses.asdict(accuracy),
            "latency": dataclasses.asdict(latency),
            "costs": costs,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def _build_all(arguments: argparse.Namespace, folder: Path) -> None:
    """One model folder with every candidate as a variant, and costs.json of what each took."""
    costs: dict[str, dict[str, float] | str] = {}
    variants: dict[str, Variant] = {}
    manifest: Manifest | None = None
    for name, options in QYOLO.items():
        home = peers.RUNS / "part"
        made = peers.qyolo(
            *("build", str(arguments.model), "--calibration", str(arguments.calibration)),
            *("--out", str(home), *options),
        )
        built = read_manifest(home)
        if manifest is None:
            manifest = built
            for precision in [name for name in built.variants if name != "int8"]:
                variants[precision] = _adopt(home, built, precision, folder, precision)
        int8 = _adopt(home, built, "int8", folder, name)
        variants[name] = int8.model_copy(update={"float_type": _islands(variants)})
        costs[name] = {"seconds": made.seconds, "peak_mib": made.peak_mib}
    assert manifest is not None
    for name, quantize in _peers(arguments, folder).items():
        home = folder / name
        home.mkdir()
        try:
            done = quantize(home)
        except subprocess.CalledProcessError as exc:
            costs[name] = f"failed with exit code {exc.returncode}"
            continue
        variants[name] = Variant(
            runtime="openvino",
            precision="int8",
            float_type=_islands(variants),
            model=f"{name}/model.xml",
        )
        costs[name] = {"seconds": done.seconds, "peak_mib": done.peak_mib}
    for scratch in ("tensors.npy", "float.onnx"):
        (folder / scratch).unlink()
    (folder / "costs.json").write_text(json.dumps(costs))
    changes = {"variants": variants, "default": "fp32", "rejected": {}}
    write_manifest(folder, manifest.model_copy(update=changes))


def _islands(variants: Mapping[str, Variant]) -> FloatType:
    """The lower float type, if a float variant is in one."""
    return next((v.float_type for v in variants.values() if v.float_type != "f32"), "f32")


def _adopt(source: Path, built: Manifest, variant: str, folder: Path, name: str) -> Variant:
    """Move a built engine into the common folder. Without its blob: all compile alike."""
    made = built.variants[variant]
    home = folder / name
    home.mkdir()
    for suffix in (".xml", ".bin"):
        (source / made.model).with_suffix(suffix).rename(home / f"model{suffix}")
    return Variant(
        runtime="openvino",
        precision=made.precision,
        float_type=made.float_type,
        model=f"{name}/model.xml",
    )


def _peers(
    arguments: argparse.Namespace, folder: Path
) -> dict[str, Callable[[Path], peers.Finished]]:
    model = read_float_model(arguments.model, 640)
    how = PREPROCESS[recognise(model).preprocess]
    tensors, source = folder / "tensors.npy", folder / "float.onnx"
    found = Images(find_images(arguments.calibration)).tensors(640, how)
    np.save(tensors, np.concatenate([tensor for tensor in found if tensor is not None]))
    onnx.save(model.model, source)
    made = {
        f"NNCF {preset}": partial(_by_nncf, folder / "fp32" / "model.xml", tensors, preset)
        for preset in ("default", "mixed")
    }
    return made | {
        f"ONNX Runtime {method}": partial(_by_onnxruntime, source, tensors, method)
        for method in ("MinMax", "Entropy", "Percentile")
    }


def _by_nncf(model: Path, tensors: Path, preset: str, home: Path) -> peers.Finished:
    return peers.nncf(str(model), str(tensors), str(home / "model.xml"), preset)


def _by_onnxruntime(model: Path, tensors: Path, method: str, home: Path) -> peers.Finished:
    done = peers.onnxruntime(str(model), str(tensors), str(home / "model.onnx"), method)
    network = ov.Core().read_model(home / "model.onnx")
    ov.save_model(network, home / "model.xml", compress_to_fp16=False)
    return done


def _print_table(
    accuracy: Evaluation, latency: Bench, costs: dict[str, dict[str, float] | str]
) -> None:
    best = accuracy.variants["fp32"].ap
    theirs = latency.variants[REFERENCE].infer_ms["p50"]
    print(f"\n{accuracy.model}, {accuracy.images} images, {latency.rounds} rounds\n")
    print("| | AP | AP50 | against fp32 | ms p50 | speed: fp32 = 1 | NNCF = 1 | build s | MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, scores in accuracy.variants.items():
        middle = latency.variants[name].infer_ms["p50"]
        cost = costs.get(name)
        spent = (
            f"{cost['seconds']:.0f} | {cost['peak_mib']:.0f}" if isinstance(cost, dict) else " | "
        )
        print(
            f"| {name} | {scores.ap:.4f} | {scores.ap50:.4f} | {scores.ap - best:+.4f} | "
            f"{middle:.2f} | {latency.speedup[name]:.2f} | {theirs / middle:.2f} | {spent} |"
        )
    for name, cost in costs.items():
        if isinstance(cost, str):
            print(f"| {name} | {cost} | | | | | | | |")


if __name__ == "__main__":
    sys.exit(main())
