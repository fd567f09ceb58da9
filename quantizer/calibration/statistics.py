"""Run the float graph over images and keep histograms and means, not activations."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from quantizer.calibration.histogram import Histogram, histogram_of, merge
from quantizer.calibration.images import ImageFiles
from quantizer.errors import NoCalibrationImages, UnsupportedModel
from quantizer.model.execution import over_images
from quantizer.model.graph import Graph
from service.progress import ReportProgress
from service.vision.detections import Floats

# About this many of a tensor's values near zero are counted in each image, each with the weight of
# the values that are skipped beside it: in a hundred images that is more than a million. All values
# far from zero are counted, because they decide where a range ends.
SAMPLE: Final = 16_384
FAR: Final = 0.5  # of the largest magnitude: few values of a SiLU output lie beyond


# Sees the number of an image, the image and the graph's own outputs, in the order of the images.
Watch = Callable[[int, Floats, list[Floats]], None]


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Over all images: the histogram of each tensor, and f32[C] the means of its channels."""

    histograms: dict[str, Histogram]
    channel_means: dict[str, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The statistics of the calibration images, and which files they come from."""

    statistics: Statistics
    images: tuple[Path, ...]  # that were decoded
    undecodable: tuple[Path, ...]


def calibrate(
    graph: Graph,
    tensors: Sequence[str],
    averaged: Sequence[str],
    files: ImageFiles,
    threads: int,
    progress: ReportProgress,
    watch: Watch | None = None,
) -> Calibration:
    """Histograms of `tensors` and channel means of `averaged` over the files.

    Files that cannot be decoded are skipped. Raises NoCalibrationImages when no file can be
    decoded, and what `observe` raises.
    """
    undecodable: list[Path] = []

    def decodable() -> Iterator[Floats]:
        for path, tensor in zip(files.paths, files.tensors(progress), strict=True):
            if tensor is None:
                undecodable.append(path)
            else:
                yield tensor

    statistics = observe(graph, tensors, decodable(), threads, averaged, watch)
    images = tuple(path for path in files.paths if path not in undecodable)
    if not images:
        count, first = len(files.paths), files.paths[0]
        raise NoCalibrationImages(
            f"none of the {count} calibration images can be decoded, {first} for one; "
            "--calibration DIR names others"
        )
    return Calibration(statistics, images, tuple(undecodable))


def observe(
    graph: Graph,
    tensors: Sequence[str],
    images: Iterable[Floats],
    threads: int,
    averaged: Sequence[str] = (),
    watch: Watch | None = None,
) -> Statistics:
    """Histograms of `tensors` and channel means of `averaged`; the graph runs once on each image.

    Memory does not depend on the number of images. Raises UnsupportedModel when the model computes
    a value that is not finite.
    """
    observed = [name for name in tensors if name != graph.input]
    watched = () if watch is None else graph.outputs
    read = list(dict.fromkeys([*observed, *watched]))
    names = [*read, *map(_mean_of, averaged)]

    def digest(number: int, image: Floats, outputs: list[Floats]) -> _Digest:
        values = {graph.input: image, **dict(zip(names, outputs, strict=False))}
        counted = [_sampled(name, values[name], number) for name in tensors]
        means = [values[_mean_of(name)].ravel() for name in averaged]
        return _Digest(counted, means, image, [values[name] for name in watched])

    observing = _observing(graph, read, averaged) if names else graph.model
    histograms: dict[str, Histogram] = {}
    sums = {name: np.zeros(1) for name in averaged}
    count = 0
    for each in over_images(observing, images, threads, digest):
        for name, histogram in zip(tensors, each.counted, strict=True):
            before = histograms.get(name)
            histograms[name] = merge(before, histogram) if before else histogram
        for name, mean in zip(averaged, each.means, strict=True):
            sums[name] = sums[name] + mean
        if watch is not None:
            watch(count, each.image, each.watched)
        count += 1
    averages = {name: (total / max(count, 1)).astype(np.float32) for name, total in sums.items()}
    return Statistics(histograms, averages)


class _Digest(NamedTuple):
    """What is kept of one image, until those before it are done."""

    counted: list[Histogram]
    means: list[Floats]
    image: Floats
    watched: list[Floats]


def _mean_of(tensor: str) -> str:
    return f"{tensor}/mean"


def _sampled(name: str, values: Floats, phase: int) -> Histogram:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UnsupportedModel(
            f"{name} is not finite on a calibration image: the float model overflows; --preprocess "
            "says which values it reads"
        )
    flat = values.ravel()
    # An odd stride, starting elsewhere in each image, meets every row, column and channel.
    stride = flat.size // SAMPLE | 1
    if stride == 1:
        return histogram_of(flat, low, high)
    limit = FAR * max(-low, high)
    sample = flat[phase % stride :: stride]
    near = histogram_of(sample[np.abs(sample) <= limit], low, high, weight=stride)
    above = flat[np.flatnonzero(flat > limit)]
    below = flat[np.flatnonzero(flat < -limit)] if low < -limit else flat[:0]
    return merge(near, histogram_of(np.concatenate([above, below]), low, high))


def _observing(graph: Graph, read: Sequence[str], averaged: Sequence[str]) -> onnx.ModelProto:
    """The graph with no other outputs, so that no decode tail runs."""
    model = graph.with_outputs(read)
    for name in averaged:
        mean = _mean_of(name)
        model.graph.node.append(helper.make_node("GlobalAveragePool", [name], [mean]))
        model.graph.output.append(helper.make_tensor_value_info(mean, TensorProto.FLOAT, None))
    return model
