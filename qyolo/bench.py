"""Latency of every variant of a model folder, interleaved in one run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from service.inference.detector import Detector
from service.manifest import read_manifest
from service.progress import Progress, ReportProgress
from service.vision.image import Photo, Pixels
from service.vision.postprocess import Query

WARM_UP: Final = 10  # rounds that are not counted
PERCENTILES: Final = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds by percentile, of the engine alone and from pixels to boxes."""

    infer_ms: Mapping[str, float]
    total_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Bench:
    """Latencies by variant; `speedup` is fp32's median over the variant's, of the engine alone."""

    model: str
    image: str
    rounds: int
    variants: Mapping[str, Latency]
    speedup: Mapping[str, float]


def noise() -> Pixels:
    """An image of 640x480 without objects: the time of an engine does not depend on its input."""
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)


def bench(
    folder: Path, image: Pixels, rounds: int, threads: int, progress: ReportProgress
) -> Bench:
    """Time the variants in alternation, so that a load on the machine slows all of them alike."""
    manifest = read_manifest(folder)
    detectors = {name: Detector.load(folder, manifest, name, threads) for name in manifest.variants}
    photo = Photo.from_pixels(image)
    infer: dict[str, list[float]] = {name: [] for name in detectors}
    total: dict[str, list[float]] = {name: [] for name in detectors}
    for done in range(-WARM_UP, rounds):
        for name, detector in detectors.items():
            start = time.perf_counter()
            prepared = detector.preprocess(photo)
            before = time.perf_counter()
            raw = detector.infer(prepared)
            after = time.perf_counter()
            detector.postprocess(raw, prepared, Query())
            if done >= 0:
                infer[name].append(after - before)
                total[name].append(time.perf_counter() - start)
        progress(Progress("bench", done + 1, rounds) if done >= 0 else Progress("warm up"))
    for detector in detectors.values():
        detector.close()
    medians = {name: float(np.median(times)) for name, times in infer.items()}
    return Bench(
        model=manifest.name,
        image=f"{image.shape[1]}x{image.shape[0]}",
        rounds=rounds,
        variants={
            name: Latency(_percentiles(infer[name]), _percentiles(total[name]))
            for name in detectors
        },
        speedup={
            name: round(medians["fp32"] / median, 3)
            for name, median in medians.items()
            if "fp32" in medians
        },
    )


def _percentiles(seconds: list[float]) -> dict[str, float]:
    values = np.percentile(seconds, PERCENTILES) * 1000
    return {
        f"p{rank}": round(float(value), 3) for rank, value in zip(PERCENTILES, values, strict=True)
    }
