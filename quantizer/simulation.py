"""The detector with any set of its layers quantized, executed on a few images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from quantizer.execution import open_session
from quantizer.graph import Graph
from quantizer.noise import output_noise, signal_power
from quantizer.placement import Placement
from quantizer.quantize import Quantized, Ranges, quantize
from service.detections import Floats
from service.heads import Head

PROBES: Final = 4  # images that the layers are tried on
MOST_LOOKED_AT: Final = 32  # images among which those are searched that show something
SOMETHING: Final = 0.25  # signal power: one box at a score of 0.5


class Probe(NamedTuple):
    """An image's tensor and the float model's raw output for it."""

    image: Floats
    output: Floats


@dataclass(frozen=True, slots=True)
class Simulation:
    """Q/DQ executed by ONNX Runtime gives what an integer kernel would, but for rounding ties."""

    graph: Graph
    ranges: Ranges
    means: Mapping[str, Floats] | None  # of the channels, for the biases' correction
    head: Head
    size: int
    probes: Sequence[Probe]
    threads: int

    def quantized(self, placement: Placement) -> Quantized:
        """The Q/DQ graph of a placement, as it would be built."""
        return quantize(self.graph, placement, self.ranges, self.means)

    def noise(self, placement: Placement) -> float:
        """The output noise of a placement over the probes."""
        session = open_session(self.quantized(placement).model, self.threads)
        pairs = [
            (probe.output, session.run(None, {self.graph.input: probe.image})[0])
            for probe in self.probes
        ]
        return output_noise(pairs, self.head, self.size)


def find_probes(
    graph: Graph, head: Head, size: int, images: Iterable[Floats], threads: int
) -> list[Probe]:
    """The first images in which the float model sees something."""
    session = open_session(graph.model, threads)
    found = []
    for image in islice(images, MOST_LOOKED_AT):
        (output,) = session.run(None, {graph.input: image})
        if signal_power(output, head, size) > SOMETHING:
            found.append(Probe(image, output))
        if len(found) == PROBES:
            break
    return found
