"""Run the float graph over images and keep histograms, not activations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from quantizer.calibration.histogram import Histogram, histogram_of, merge
from quantizer.errors import UnsupportedModel
from quantizer.model.execution import over_images
from quantizer.model.graph import Graph
from service.vision.detections import Floats

# Of a tensor's values near zero about so many are counted in an image, each for its neighbours too:
# over a hundred images more than a million. The far ones, which decide where a range ends, are all
# counted.
SAMPLE: Final = 16_384
FAR: Final = 0.5  # of the largest magnitude: few values of a SiLU output lie beyond


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Over all images: each tensor's histogram, and f32[C] the means of its channels."""

    histograms: dict[str, Histogram]
    channel_means: dict[str, Floats]


def observe(
    graph: Graph,
    tensors: Sequence[str],
    images: Iterable[Floats],
    threads: int,
    averaged: Sequence[str] = (),
) -> Observed:
    """Histograms of `tensors` and channel means of `averaged`; one execution an image.

    Memory does not depend on the number of images. Raises UnsupportedModel when the model computes
    a value that is not finite.
    """
    watched = [name for name in tensors if name != graph.input]
    names = [*watched, *map(_mean_of, averaged)]

    def digest(
        number: int, image: Floats, outputs: list[Floats]
    ) -> tuple[list[Histogram], list[Floats]]:
        values = {graph.input: image, **dict(zip(names, outputs, strict=False))}
        found = [_sampled(name, values[name], number) for name in tensors]
        return found, [values[_mean_of(name)].ravel() for name in averaged]

    watching = _watching(graph, watched, averaged) if names else graph.model
    histograms: dict[str, Histogram] = {}
    sums = {name: np.zeros(1) for name in averaged}
    count = 0
    for found, means in over_images(watching, images, threads, digest):
        for name, histogram in zip(tensors, found, strict=True):
            before = histograms.get(name)
            histograms[name] = merge(before, histogram) if before else histogram
        for name, mean in zip(averaged, means, strict=True):
            sums[name] = sums[name] + mean
        count += 1
    averages = {name: (total / max(count, 1)).astype(np.float32) for name, total in sums.items()}
    return Observed(histograms, averages)


def _mean_of(tensor: str) -> str:
    return f"{tensor}/mean"


def _sampled(name: str, values: Floats, phase: int) -> Histogram:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UnsupportedModel(f"{name} is not finite on a calibration image")
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


def _watching(graph: Graph, watched: Sequence[str], averaged: Sequence[str]) -> onnx.ModelProto:
    """The graph with what is observed as its only outputs: the decode tail is not run."""
    model = graph.watching(watched)
    for name in averaged:
        mean = _mean_of(name)
        model.graph.node.append(helper.make_node("GlobalAveragePool", [name], [mean]))
        model.graph.output.append(helper.make_tensor_value_info(mean, TensorProto.FLOAT, None))
    return model
