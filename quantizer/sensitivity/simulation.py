"""The detector with any set of its layers quantized, executed on a few images."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, Self, TypeVar

import onnx

from quantizer.model.execution import over_feeds, over_images
from quantizer.model.graph import Graph
from quantizer.model.map_layout import Maps
from quantizer.model.serving_graph import ended_at
from quantizer.qdq.placement import Placement
from quantizer.qdq.quantize import Quantized, Ranges, quantize
from quantizer.qdq.weights import Weights
from quantizer.sensitivity.detection_loss import Loss, detection_loss, mean_loss
from quantizer.sensitivity.resumption import resumed
from quantizer.sensitivity.sqnr import BELOW_ALL_SCORES, Reading, Reference, relative
from service.vision.detections import Floats

SAMPLES: Final = 12  # images on which candidates are compared
# Of them, those with the strongest signal, on which sets of layers are tried. Two of those rank the
# layers of YOLOX-nano and YOLOv8n more like all twelve do than four others.
NOISE_SAMPLES: Final = 2
SEARCHED_IMAGES: Final = 32  # at most, for samples
SAMPLE_SIGNAL: Final = 0.25  # the least of a sample: one box at a score of 0.5

T = TypeVar("T")
R = TypeVar("R")


class SensitivitySample(NamedTuple):
    """An image f32[1,3,H,W], and what the float model detects in it."""

    image: Floats
    reference: Reference


@dataclass(frozen=True, slots=True)
class Simulation:
    """Executes Q/DQ graphs in ONNX Runtime; integer kernels differ only in rounding ties."""

    graph: Graph
    ranges: Ranges
    weights: Weights
    means: Mapping[str, Floats] | None  # of the channels, to correct the biases
    samples: Sequence[SensitivitySample]
    threads: int
    maps: Maps | None = None  # at which the graph is executed, instead of its decode tail
    noise_samples: int = NOISE_SAMPLES  # the first of the samples, on which the noise is measured
    # By tensor: activations of the float graph in each of the first samples.
    known: Sequence[Mapping[str, Floats]] = ()

    def quantized(self, placement: Placement) -> Quantized:
        """The Q/DQ graph of a placement, as it would be built."""
        return quantize(self.graph, placement, self.ranges, self.weights, self.means)

    def resuming_at(self, tensors: Sequence[str]) -> Self:
        """The same for many placements: its graph ends at the maps, and of the first samples it
        computes no more than what quantization changes behind these activations."""
        return self._ended()._knowing(tensors, self.noise_samples)

    def resuming_for(self, placements: Iterable[Placement], count: int) -> Self:
        """The same for these placements and `count` samples; it keeps only what they read."""
        ended = self._ended()
        all_known, read = ended.graph.shapes.keys(), set[str]()
        for placement in placements:
            model = resumed(ended._executed(placement), ended.graph, all_known)
            read.update(each.name for each in model.graph.input)
        few = replace(ended, samples=self.samples[:count])
        return few._knowing(sorted(read - {ended.graph.input}), count)

    def noise(self, placement: Placement) -> float:
        """The output noise of a placement over the first samples."""
        samples = self.samples[: self.noise_samples]
        return noise_of(*self._resumed(placement, samples), self.threads)

    def noises(self, placements: Iterable[Placement]) -> Iterator[float]:
        """The noise of each placement, in order."""
        return self.in_pairs(Simulation.noise, placements)

    def loss(self, placement: Placement) -> float:
        """The share of the detections that a placement costs, predicted over all samples."""
        return loss_of(*self._resumed(placement, self.samples), self.threads)

    def in_pairs(self, ask: Callable[["Simulation", T], R], items: Iterable[T]) -> Iterator[R]:
        """The answer for each item, in order. Two are asked at a time, with half the threads each:
        more than half of the time goes into making a graph and reading its outputs."""
        half = replace(self, threads=max(1, self.threads // 2))
        with ThreadPoolExecutor(min(self.threads, 2)) as pool:
            try:
                yield from pool.map(partial(ask, half), items)
            finally:
                pool.shutdown(cancel_futures=True)

    def _ended(self) -> Self:
        """The same with a graph that ends at the maps."""
        graph = Graph.of(ended_at(self.graph.model, self.maps))
        return replace(self, graph=graph, maps=None)

    def _knowing(self, tensors: Sequence[str], count: int) -> Self:
        """The same with these activations of the first `count` samples."""
        kept = [*tensors, *self.graph.outputs]  # a graph needs outputs
        images = (sample.image for sample in self.samples[:count])

        def feed(number: int, image: Floats, outputs: list[Floats]) -> dict[str, Floats]:
            return {self.graph.input: image, **dict(zip(kept, outputs, strict=True))}

        executed = over_images(self.graph.with_outputs(kept), images, self.threads, feed)
        return replace(self, known=list(executed))

    def _resumed(
        self, placement: Placement, samples: Sequence[SensitivitySample]
    ) -> tuple[onnx.ModelProto, Sequence[Mapping[str, Floats]], Sequence[Reference]]:
        """What to execute for the first samples, and for each what to feed it and its reference."""
        model, references = self._executed(placement), [each.reference for each in samples]
        if len(self.known) < len(samples):
            return model, [{self.graph.input: each.image} for each in samples], references
        known = self.known[: len(samples)]
        return resumed(model, self.graph, known[0].keys()), known, references

    def _executed(self, placement: Placement) -> onnx.ModelProto:
        model = self.quantized(placement).model
        return model if self.maps is None else ended_at(model, self.maps)


def noise_of(
    model: onnx.ModelProto,
    feeds: Iterable[Mapping[str, Floats]],
    references: Sequence[Reference],
    threads: int,
) -> float:
    """The output noise of a quantized graph, relative to the signal; a feed for each reference."""

    def noise_power(number: int, feed: Mapping[str, Floats], outputs: list[Floats]) -> float:
        return references[number].noise(outputs)

    return relative(over_feeds(model, feeds, threads, noise_power), references)


def loss_of(
    model: onnx.ModelProto,
    feeds: Iterable[Mapping[str, Floats]],
    references: Sequence[Reference],
    threads: int,
) -> float:
    """The detection loss of a quantized graph; a feed for each reference."""

    def loss(number: int, feed: Mapping[str, Floats], outputs: list[Floats]) -> Loss:
        reference = references[number]
        output = reference.reading.decode(outputs, BELOW_ALL_SCORES)
        return detection_loss(reference.candidates, output, reference.reading)

    return mean_loss(over_feeds(model, feeds, threads, loss))


@dataclass(frozen=True, slots=True)
class SampleSearch:
    """Looks for the first `count` images in which the float model detects something.

    Only every `step`-th image is looked at, SEARCHED_IMAGES of them at most.
    """

    reading: Reading
    count: int = SAMPLES
    step: int = 1
    found: list[SensitivitySample] = field(default_factory=list)

    def see(self, number: int, image: Floats, outputs: list[Floats]) -> None:
        """The next image, and what the float model makes of it."""
        searched, skipped = divmod(number, self.step)
        if skipped or searched >= SEARCHED_IMAGES or len(self.found) == self.count:
            return
        sample = SensitivitySample(image, Reference.of(outputs, self.reading))
        if sample.reference.signal > SAMPLE_SIGNAL:
            self.found.append(sample)

    @property
    def samples(self) -> list[SensitivitySample]:
        """What was found, the strongest signal first."""
        return sorted(self.found, key=lambda each: -each.reference.signal)


def find_samples(
    model: onnx.ModelProto,
    reading: Reading,
    images: Iterable[Floats],
    threads: int,
    count: int = SAMPLES,
) -> list[SensitivitySample]:
    """The samples of these images, for which the float model is executed."""
    search = SampleSearch(reading, count)

    def executed(
        number: int, image: Floats, outputs: list[Floats]
    ) -> tuple[int, Floats, list[Floats]]:
        return number, image, outputs

    for each in over_images(model, islice(images, SEARCHED_IMAGES), threads, executed):
        search.see(*each)
        if len(search.found) == count:
            break
    return search.samples
