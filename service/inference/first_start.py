"""The default variant of a model that was built for a GPU elsewhere: the first start times them."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from service.engines.gpu import Gpu, find_gpu
from service.inference.detector import Detector
from service.manifest import Manifest, read_local, write_local
from service.vision.image import Photo
from service.vision.input_size import InputSize

ROUNDS: Final = 20
TIMES: Final = TypeAdapter(dict[str, float])

log = logging.getLogger(__name__)


def settle_default(folder: Path, manifest: Manifest, detectors: Mapping[str, Detector]) -> Manifest:
    """The manifest with the fastest accepted variant on this GPU as default.

    The times are kept in the folder, for this kind of GPU. Without all detectors, or a GPU, the
    manifest stays as it is.
    """
    gpu = find_gpu()
    if manifest.timed or not isinstance(gpu, Gpu):
        return manifest
    name = f"{gpu.fingerprint}.json"
    ms = _saved(folder, name, manifest)
    if not ms and detectors.keys() == manifest.variants.keys():
        ms = _milliseconds(detectors, manifest.size)
        write_local(folder, name, json.dumps(ms).encode())
        log.info("timed on %s: %s", gpu.name, ", ".join(f"{n} {t:.2f} ms" for n, t in ms.items()))
    accepted = [each for each in ms if each not in manifest.rejected]
    if not accepted:
        return manifest
    return manifest.model_copy(update={"default": min(accepted, key=ms.__getitem__)})


def _saved(folder: Path, name: str, manifest: Manifest) -> dict[str, float]:
    """The times of an earlier start; empty where there are none, or not of these variants."""
    try:
        ms: dict[str, float] = TIMES.validate_json(read_local(folder, name) or b"{}")
    except ValidationError:
        return {}
    return ms if ms.keys() == manifest.variants.keys() else {}


def _milliseconds(detectors: Mapping[str, Detector], size: InputSize) -> dict[str, float]:
    """The median of each; a round runs every variant once, so that a load slows all alike."""
    blank = Photo.from_pixels(np.zeros((size.height, size.width, 3), np.uint8))
    times: dict[str, list[float]] = {name: [] for name in detectors}
    for _ in range(ROUNDS):
        for name, detector in detectors.items():
            prepared = detector.preprocess(blank)
            before = time.perf_counter()
            detector.infer(prepared)
            times[name].append((time.perf_counter() - before) * 1000)
    return {name: round(median(each), 3) for name, each in times.items()}
