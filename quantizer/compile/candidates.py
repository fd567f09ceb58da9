"""The candidate engines of one model: which to compile, how fast they are, which to keep."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from quantizer.compile.accelerator import Accelerator
from quantizer.compile.builder import Built, Candidate
from quantizer.model.map_layout import Maps
from quantizer.qdq.float8 import to_float8
from service.engines import load_engine
from service.manifest import FloatType, Precision
from service.vision.preprocess import PREPROCESS, Canvas, Preprocess

LOW_NAMES: Final[Mapping[FloatType, Precision]] = {"bf16": "bf16", "f16": "fp16"}
FLOAT_NAMES: Final[Mapping[FloatType, Precision]] = {"f32": "fp32", **LOW_NAMES}
WARM_UP: Final = 2  # rounds that are not counted
ROUNDS: Final = 20  # at most
FEWEST_ROUNDS: Final = 3
SECONDS: Final = 6.0  # no further round begins later, once FEWEST_ROUNDS are done


def candidates_for(
    float_model: onnx.ModelProto,
    int8_model: onnx.ModelProto,
    low: FloatType | None,
    preprocess: Preprocess = PREPROCESS["yolo"],
    maps: Maps | None = None,
    float8: bool = False,
) -> list[Candidate]:
    """fp32 and int8; where the processor has a lower float type, both also in that type.

    With `float8` also int8's layers in FP8; its other layers are in float16.
    """
    candidates = [Candidate("fp32", float_model), Candidate("int8", int8_model)]
    if low is not None:
        candidates.insert(1, Candidate(LOW_NAMES[low], float_model, low))
        candidates.append(Candidate("int8", int8_model, low))
    if float8:
        candidates.append(Candidate("fp8", to_float8(int8_model, float_model), "f16"))
    return [replace(candidate, preprocess=preprocess, maps=maps) for candidate in candidates]


def candidates_on(accelerator: Accelerator, processors: Sequence[Candidate]) -> list[Candidate]:
    """The float and the int8 graph of the processor, in each float type of another device."""
    graphs = {each.variant: each for each in processors}
    return [
        replace(each, float_type=low, device=accelerator.device)
        for low in accelerator.float_types
        for each in (replace(graphs["fp32"], variant=FLOAT_NAMES[low]), graphs["int8"])
    ]


def for_a_gpu_elsewhere(candidates: list[Candidate]) -> list[Candidate]:
    """One for each variant, where none can be timed: int8 with its float layers in float16.

    By the list of layers that the compiler prints it moves the fewest bytes on every GPU.
    """
    return [each for each in candidates if each.variant != "int8" or each.float_type == "f16"]


def time_interleaved(
    built: Mapping[str, Built],
    folder: Path,
    image: Canvas,
    threads: int,
    preprocess: Preprocess = PREPROCESS["yolo"],
) -> dict[str, float]:
    """Median milliseconds of each engine on one image, by the candidate's name.

    Each round runs every engine once, so that a load on the machine slows all alike.
    """
    engines = {
        name: load_engine(folder, part.variant, threads, preprocess=preprocess)
        for name, part in built.items()
    }
    times: dict[str, list[float]] = {name: [] for name in engines}
    started = time.perf_counter()
    try:
        for number in range(-WARM_UP, ROUNDS):
            if number >= FEWEST_ROUNDS and time.perf_counter() - started > SECONDS:
                break
            for name, engine in engines.items():
                before = time.perf_counter()
                engine.infer(image)
                if number >= 0:
                    times[name].append((time.perf_counter() - before) * 1000)
    finally:
        for engine in engines.values():
            engine.close()
    return {name: round(float(np.median(ms)), 3) for name, ms in times.items()}


def keep_fastest(
    candidates: list[Candidate], built: Mapping[str, Built], ms: Mapping[str, float], folder: Path
) -> tuple[dict[str, Built], dict[str, float]]:
    """The faster engine of each variant, and its milliseconds; removes the files of the slower."""

    def fastest(variant: str) -> str:
        names = (each.name for each in candidates if each.served_as == variant)
        return min(names, key=ms.__getitem__)

    chosen = {each.served_as: fastest(each.served_as) for each in candidates}
    for name in set(built) - set(chosen.values()):
        shutil.rmtree(folder / name)
    return (
        {variant: built[name] for variant, name in chosen.items()},
        {variant: ms[name] for variant, name in chosen.items()},
    )
