"""From the bytes of an image in the model's square to its candidate boxes: engine and decode."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from service.engines import load_engine
from service.engines.cpu import usable_threads
from service.manifest import Manifest, projections_of
from service.progress import Progress, ReportProgress
from service.vision.heads import HEADS
from service.vision.image import MAX_PIXELS, decode_image
from service.vision.postprocess import Decoder, Query
from service.vision.preprocess import PREPROCESS, Canvas, preprocess

CONF: Final = Query().conf  # the default threshold
WARM_UP: Final = 5  # rounds that are not counted


@dataclass(frozen=True, slots=True)
class CandidateTimes:
    """Median milliseconds of one image."""

    engine_ms: float
    decode_ms: float
    total_ms: float


def read_canvases(paths: Sequence[Path], manifest: Manifest) -> list[Canvas]:
    """Images as the model reads them, u8[1,height,width,3]."""
    padding = PREPROCESS[manifest.preprocess].padding
    photos = (decode_image(path.read_bytes(), MAX_PIXELS, manifest.size) for path in paths)
    return [preprocess(photo, manifest.size, padding).canvas for photo in photos]


def time_candidates(
    folder: Path,
    manifest: Manifest,
    canvases: Sequence[Canvas],
    rounds: int,
    progress: ReportProgress,
) -> Mapping[str, CandidateTimes]:
    """Times by variant: each round gives every variant the next image.

    A variant with a `raw` graph is decoded from its maps, any other one by the head of the model.
    """
    how, head = PREPROCESS[manifest.preprocess], HEADS[manifest.head]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in manifest.variants}
    with ExitStack() as stack:
        served = {}
        for name, variant in manifest.variants.items():
            engine = load_engine(folder, variant, usable_threads(), preprocess=how)
            maps, projections = manifest.maps_of(name), projections_of(folder, variant)
            decoder = Decoder.of(head, manifest.size, maps, projections)
            served[name] = stack.enter_context(closing(engine)), decoder
        for done in range(-WARM_UP, rounds):
            canvas = canvases[done % len(canvases)]
            for name, (engine, decoder) in served.items():
                start = time.perf_counter()
                outputs = engine.infer(canvas)
                between = time.perf_counter()
                decoder.decode(outputs, CONF)
                if done >= 0:
                    seconds[name].append((between - start, time.perf_counter() - between))
            progress(Progress("time", done + 1, rounds) if done >= 0 else Progress("warm up"))
    return {name: _medians(np.array(times) * 1000) for name, times in seconds.items()}


def _medians(ms: np.ndarray) -> CandidateTimes:
    engine, decode = (round(float(each), 3) for each in np.median(ms, axis=0))
    return CandidateTimes(engine, decode, round(float(np.median(ms.sum(axis=1))), 3))
