"""The detector with any set of its layers quantized, executed on a few images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import onnx

from quantizer.model.execution import over_images
from quantizer.model.graph import Graph
from quantizer.qdq.placement import Placement
from quantizer.qdq.quantize import Quantized, Ranges, quantize
from quantizer.qdq.weights import Weights
from quantizer.sensitivity.sqnr import Reference, relative
from service.vision.detections import Floats
from service.vision.heads import Head

SAMPLES: Final = 4  # images that the layers are tried on
MOST_LOOKED_AT: Final = 32  # images among which those are searched that show something
SOMETHING: Final = 0.25  # signal power: one box at a score of 0.5


class SensitivitySample(NamedTuple):
    """An image's tensor and what the float model says of it."""

    image: Floats
    reference: Reference


@dataclass(frozen=True, slots=True)
class Simulation:
    """Q/DQ executed by ONNX Runtime gives what an integer kernel would, but for rounding ties."""

    graph: Graph
    ranges: Ranges
    weights: Weights
    means: Mapping[str, Floats] | None  # of the channels, for the biases' correction
    head: Head
    size: int
    samples: Sequence[SensitivitySample]
    threads: int

    def quantized(self, placement: Placement) -> Quantized:
        """The Q/DQ graph of a placement, as it would be built."""
        return quantize(self.graph, placement, self.ranges, self.weights, self.means)

    def noise(self, placement: Placement) -> float:
        """The output noise of a placement over the probes."""
        return noise_of(self.quantized(placement).model, self.samples, self.threads)


def noise_of(model: onnx.ModelProto, samples: Sequence[SensitivitySample], threads: int) -> float:
    """The output noise of a quantized graph over the probes."""
    references = [probe.reference for probe in samples]

    def one(number: int, image: Floats, outputs: list[Floats]) -> float:
        return references[number].noise(outputs[0])

    images = (probe.image for probe in samples)
    return relative(over_images(model, images, threads, one), references)


def find_samples(
    graph: Graph,
    head: Head,
    size: int,
    images: Iterable[Floats],
    threads: int,
    count: int = SAMPLES,
) -> list[SensitivitySample]:
    """The first `count` images in which the float model sees something."""

    def look(number: int, image: Floats, outputs: list[Floats]) -> SensitivitySample:
        return SensitivitySample(image, Reference.of(outputs[0], head, size))

    looks = over_images(graph.model, islice(images, MOST_LOOKED_AT), threads, look)
    telling = (probe for probe in looks if probe.reference.signal > SOMETHING)
    return list(islice(telling, count))
