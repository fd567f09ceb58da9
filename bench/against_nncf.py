"""qyolo beside NNCF: the same model, images and engine, accuracy and latency in one run.

    .venv/bin/python bench/against_nncf.py MODEL --calibration DIR --images DIR --annotations FILE

NNCF is installed, pinned, into runs/nncf-venv on the first run. Calibration is timed on tensors in
memory, so that decoding images counts for nobody; all take turns, and the median turn is told.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
import venv
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort

from quantizer.bias import averaged_tensors
from quantizer.build import build
from quantizer.cache import publish
from quantizer.calibration import Images, find_images
from quantizer.evaluate import Evaluation, evaluate
from quantizer.float_model import FloatModel, read_float_model
from quantizer.graph import Graph
from quantizer.layout import recognise
from quantizer.observe import observe
from quantizer.placement import plan_placement
from quantizer.ranges import RANGE_RULES
from quantizer.recipe import Recipe
from qyolo.bench import Bench, bench, noise
from qyolo.progress import progress_bars
from service.cpu import usable_threads
from service.manifest import Manifest, Variant, read_manifest, write_manifest
from service.preprocess import PREPROCESS

NNCF = "nncf==3.4.0"
RUNS = Path("runs")
NNCF_PRESETS = ("default", "mixed")
CALIBRATION_TURNS = 3


def main() -> None:
    arguments = _arguments()
    folder = RUNS / f"against-nncf-{arguments.model.stem}"
    publish(folder.resolve(), lambda staging: _build_all(arguments, staging))
    with progress_bars() as progress:
        accuracy = evaluate(folder, arguments.images, arguments.annotations, 0, progress)
        latency = bench(folder, noise(), arguments.rounds, 0, progress)
    calibration = json.loads((folder / "calibration.json").read_text())
    _print_tables(accuracy, latency, calibration)
    if arguments.json:
        result = {
            "accuracy": dataclasses.asdict(accuracy),
            "latency": dataclasses.asdict(latency),
            "calibration_ms_per_image": calibration,
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
    """One model folder with every contender as a variant."""
    variants: dict[str, Variant] = {}
    manifest: Manifest | None = None
    plain = Recipe(arguments.model, arguments.calibration, bias_correction=False)
    recipes = {f"qyolo {rule}": replace(plain, ranges=rule) for rule in RANGE_RULES}
    recipes["qyolo uh, bias corrected"] = replace(plain, bias_correction=True)
    for contender, recipe in recipes.items():
        part = RUNS / "part"
        publish(part.resolve(), lambda staging, recipe=recipe: build(recipe, staging, _silent))
        manifest = read_manifest(part)
        for precision in ("fp32", "int8"):
            name = "fp32" if precision == "fp32" else contender
            if name not in variants:
                model = part / manifest.variants[precision].model
                variants[name] = _adopt(model.parent, folder, name)
    model = read_float_model(arguments.model, 640)
    tensors = _calibration_tensors(model, arguments.calibration, folder)
    turns = [_calibrate_all(model.graph, folder, tensors) for _ in range(CALIBRATION_TURNS)]
    times = {name: median(turn[name] for turn in turns) for name in turns[0]}
    for preset in NNCF_PRESETS:
        name = f"NNCF {preset}"
        variants[name] = Variant(runtime="openvino", precision="int8", model=f"{name}/model.xml")
    tensors.unlink()
    (folder / "calibration.json").write_text(json.dumps(times))
    assert manifest is not None
    write_manifest(folder, manifest.model_copy(update={"variants": variants, "default": "fp32"}))


def _silent(step: object) -> None:
    pass


def _adopt(source: Path, folder: Path, name: str) -> Variant:
    """Move a built engine into the common folder. Without its blob: all compile alike."""
    home = folder / name
    home.mkdir()
    for file in ("model.xml", "model.bin"):
        (source / file).rename(home / file)
    precision = "fp32" if name == "fp32" else "int8"
    return Variant(runtime="openvino", precision=precision, model=f"{name}/model.xml")


def _calibration_tensors(model: FloatModel, calibration: Path, folder: Path) -> Path:
    how = PREPROCESS[recognise(model).preprocess]
    tensors = Images(find_images(calibration)).tensors(640, how)
    path = folder / "tensors.npy"
    np.save(path, np.concatenate([tensor for tensor in tensors if tensor is not None]))
    return path


def _calibrate_all(graph: Graph, folder: Path, file: Path) -> dict[str, float]:
    """One turn each: milliseconds an image; NNCF also leaves its int8 model in the folder."""
    tensors = np.load(file, mmap_mode="r")
    times = {
        "forward pass": _time_forward(graph, tensors),
        "qyolo statistics": _time_observation(graph, tensors),
    }
    for preset in NNCF_PRESETS:
        home = folder / f"NNCF {preset}"
        home.mkdir(exist_ok=True)
        model = folder / "fp32" / "model.xml"
        output = _nncf(str(model), str(file), str(home / "model.xml"), preset)
        times[f"NNCF {preset} statistics"] = output["statistics_s"] / len(tensors) * 1000
    return times


def _time_forward(graph: Graph, tensors: np.ndarray) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads = usable_threads()
    session = ort.InferenceSession(graph.model.SerializeToString(), options)
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


def _nncf(*arguments: str) -> dict[str, float]:
    home = RUNS / "nncf-venv"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        wanted = [NNCF, f"openvino=={version('openvino')}", f"numpy=={version('numpy')}"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        (home / "ready").touch()
    script = Path(__file__).with_name("nncf_quantize.py")
    done = subprocess.run(
        [python, script, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _print_tables(accuracy: Evaluation, latency: Bench, calibration: dict[str, float]) -> None:
    reference = accuracy.variants["fp32"]
    theirs = latency.variants["NNCF default"].infer_ms["p50"]
    print(f"\n{accuracy.model}, {accuracy.images} images, {latency.rounds} rounds\n")
    print("| | AP | AP50 | drop | ms p50 | against fp32 | against NNCF |")
    print("|---|---|---|---|---|---|---|")
    for name, scores in accuracy.variants.items():
        middle = latency.variants[name].infer_ms["p50"]
        print(
            f"| {name} | {scores.ap:.4f} | {scores.ap50:.4f} | {reference.ap - scores.ap:+.4f} | "
            f"{middle:.2f} | {latency.speedup[name]:.2f}x | {theirs / middle:.2f}x |"
        )
    forward = calibration["forward pass"]
    print("\n| calibration | ms an image | against the forward pass |\n|---|---|---|")
    for name, value in calibration.items():
        print(f"| {name} | {value:.1f} | {value / forward:.2f}x |")


if __name__ == "__main__":
    sys.exit(main())
