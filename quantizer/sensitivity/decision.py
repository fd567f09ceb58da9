"""Decide which layers stay float: those without an int8 kernel, then the most sensitive.

Nothing here is timed, so two builds decide the same.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType
from typing import Final

from quantizer.compile.builder import INT8_NAMES, Builder
from quantizer.compile.workload import macs
from quantizer.model.graph import Graph, layer_name
from quantizer.model.projected import kept_shares
from quantizer.qdq.placement import Placement, plan_placement
from quantizer.qdq.quantize import Ranges
from quantizer.sensitivity.refinement import find_better_bounds
from quantizer.sensitivity.search import Found, search
from quantizer.sensitivity.simulation import Simulation
from quantizer.sensitivity.sqnr import decibels, from_decibels
from service.progress import ReportProgress

# SQNR of the outputs in dB from which on AP cannot tell them from float ones.
ENOUGH_SQNR: Final = 25.0
# The loss of detections that a candidate may have. See docs/results/accuracy.md.
MAX_LOSS: Final = 0.06


@dataclass(frozen=True, slots=True)
class Point:
    """A set of layers that could stay float.

    loss: of the detections, predicted, 0..1. cost: the time that these layers add, estimated, as a
    fraction of the time of all convolutions in int8.
    """

    kept_float: tuple[str, ...]
    loss: float
    cost: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What the search found, and the output noise `before`, all layers in int8, and `after`."""

    found: Found
    before: float
    after: float
    executions: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The placement and the ranges to build, and what led to them; None where the float model
    detected nothing.

    `frontier` is empty where the configuration names the SQNR to keep.
    """

    placement: Placement
    ranges: Ranges
    sensitivity: Sensitivity | None
    frontier: tuple[Point, ...] = ()


def decide(
    simulation: Simulation,
    keep_float: Mapping[str, str],
    builder: Builder,
    min_sqnr: float | None,
    progress: ReportProgress,
    refined: int = 0,
) -> Decision:
    """Keep layers float until the predicted loss of detections is within MAX_LOSS, at the least
    cost, or until the outputs' SQNR is at `min_sqnr` decibels, if that is given.

    `keep_float` maps the layers that stay float in any case to the reasons; `refined` is the number
    of samples on which ranges are refined before more layers stay float. Raises BuildFailed.
    """

    def plan(floats: Mapping[str, str]) -> Placement:
        return plan_placement(simulation.graph, floats, builder.qdq_format)

    fixed = {**keep_float, **_without_int8_kernel(simulation, plan(keep_float), builder)}
    all_int8 = plan(fixed)
    layers = all_int8.layers
    if not simulation.samples:
        return Decision(all_int8, simulation.ranges, None)
    trials = _Trials(simulation.resuming_at(all_int8.tensors), plan, fixed, layers)
    budget = from_decibels(ENOUGH_SQNR if min_sqnr is None else min_sqnr)
    costs = float_costs(simulation.graph, layers, _computed(simulation, builder))
    points: dict[tuple[str, ...], Point] = {}

    def loses_little(kept_float: tuple[str, ...]) -> bool:
        cost = sum(costs[layer] for layer in kept_float)
        points[kept_float] = Point(kept_float, trials.loss(kept_float), cost)
        return points[kept_float].loss <= MAX_LOSS

    def is_quiet(kept_float: tuple[str, ...]) -> bool:
        return trials.noise(kept_float) <= budget

    def refine(noisiest: Sequence[str]) -> Collection[str]:
        if not refined:
            return ()
        factors = find_better_bounds(simulation, all_int8, noisiest, refined, progress)
        trials.use(simulation.ranges.scaled(factors))
        changed = {tensor for tensors in factors for tensor in tensors}
        return [site.layer for site in all_int8.weights if changed.intersection(site.reads)]

    accepts = loses_little if min_sqnr is None else is_quiet
    found = search(layers, trials.noises_alone, budget, costs, progress, accepts, refine)
    before, after = trials.noise(()), trials.noise(found.kept_float)
    if min_sqnr is None and found.kept_float not in points:
        loses_little(found.kept_float)
    sensitive = {
        each.layer: f"sensitive: alone in int8 it leaves {decibels(each.noise):.1f} dB"
        for each in found.layers
        if each.layer in found.kept_float
    }
    frontier = sorted(points.values(), key=lambda point: len(point.kept_float))
    return Decision(
        plan({**fixed, **sensitive}),
        trials.simulation.ranges,
        Sensitivity(found, before, after, trials.executions),
        tuple(each for each in frontier if len(each.kept_float) <= len(found.kept_float)),
    )


@dataclass(slots=True)
class _Trials:
    """Executes the detector with chosen layers kept float, beside those of `fixed`."""

    simulation: Simulation
    plan: Callable[[Mapping[str, str]], Placement]
    fixed: Mapping[str, str]
    layers: Sequence[str]
    executions: int = 0
    noises: dict[tuple[str, ...], float] = field(default_factory=dict)  # by the layers kept float

    def use(self, ranges: Ranges) -> None:
        """Quantize with these ranges from now on."""
        self.simulation = replace(self.simulation, ranges=ranges)
        self.noises.clear()

    def loss(self, kept_float: Iterable[str]) -> float:
        return self.simulation.loss(self._without(kept_float))

    def noise(self, kept_float: tuple[str, ...]) -> float:
        """Measured once: the search may have asked for it."""
        if kept_float not in self.noises:
            self.noises[kept_float] = self.simulation.noise(self._without(kept_float))
        return self.noises[kept_float]

    def noises_alone(self, groups: Sequence[Sequence[str]]) -> Iterator[float]:
        """Of each of these groups of layers, with every other layer kept float."""
        others = ([each for each in self.layers if each not in group] for group in groups)
        return self.simulation.noises(map(self._without, others))

    def _without(self, kept_float: Iterable[str]) -> Placement:
        self.executions += 1
        return self.plan({**self.fixed, **dict.fromkeys(kept_float, "tried float")})


def _without_int8_kernel(
    simulation: Simulation, all_int8: Placement, builder: Builder
) -> dict[str, str]:
    """The layers that the runtime executes in float anyway."""
    executed = builder.executed(simulation.quantized(all_int8).model)
    return {
        layer: "the runtime has no int8 kernel for it here"
        for layer in all_int8.layers
        if layer in executed and executed[layer] not in INT8_NAMES
    }


def _computed(simulation: Simulation, builder: Builder) -> Mapping[str, float]:
    """The share of a layer's outputs that the served graph computes, where it is not all.

    TensorRT's graphs compute all, since they select the best anchors.
    """
    if simulation.maps is None or builder.qdq_format.explicit:
        return {}
    return kept_shares(simulation.graph, simulation.maps)


def float_costs(
    graph: Graph, layers: Sequence[str], computed: Mapping[str, float] = MappingProxyType({})
) -> dict[str, float]:
    """What each layer costs by staying float, as a fraction of the time that all take in int8.

    `computed` is the share of a layer's outputs that are computed at all, where it is not 1.

    It is the mean of two shares: of the multiply-accumulates, and of the values that are read and
    written, each of which is wider in float and has to be converted at both ends. Counted, not
    timed: the differences between a layer's time in int8 and in float are smaller than the noise
    of their measurement, and a build that follows them chooses other layers each time.
    """
    nodes = {layer_name(node): node for node in graph.nodes}
    counts, products, values = macs(graph), {}, {}
    for layer in layers:
        share = computed.get(layer, 1.0)
        read, made = (
            prod(graph.shapes.get(name, ()))
            for name in (nodes[layer].input[0], nodes[layer].output[0])
        )
        products[layer] = share * counts.get(layer, 0)
        values[layer] = read + share * made
    all_products = sum(products.values()) or 1
    all_values = sum(values.values())
    return {
        layer: (products[layer] / all_products + values[layer] / all_values) / 2 for layer in layers
    }
