"""The peak and the power of each channel of a tensor, over a few images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantizer.model.execution import over_images
from quantizer.model.graph import Graph
from service.vision.detections import Floats

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """f64[C] each: the largest magnitude of a channel, its mean, and the mean of its squares."""

    peak: Doubles
    mean: Doubles
    power: Doubles

    @property
    def variance(self) -> Doubles:
        return self.power - self.mean**2


def measure_channels(
    graph: Graph, tensors: Sequence[str], images: Iterable[Floats], threads: int
) -> dict[str, Channels]:
    """By tensor f32[1,C,...]; the graph runs once on each image. Empty without an image."""
    if not tensors:
        return {}

    def digest(number: int, image: Floats, outputs: list[Floats]) -> list[Channels]:
        flat = [values[0].reshape(values.shape[1], -1).astype(np.float64) for values in outputs]
        return [
            Channels(np.abs(v).max(axis=1), v.mean(axis=1), np.square(v).mean(axis=1)) for v in flat
        ]

    measured = list(over_images(graph.with_outputs(tensors), images, threads, digest))
    return {
        tensor: Channels(
            np.max([each.peak for each in of_images], axis=0),
            np.mean([each.mean for each in of_images], axis=0),
            np.mean([each.power for each in of_images], axis=0),
        )
        for tensor, of_images in zip(tensors, zip(*measured, strict=True), strict=False)
    }
