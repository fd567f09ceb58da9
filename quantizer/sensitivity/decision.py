"""Decide which layers stay float: those without an int8 kernel, then the most sensitive."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

from quantizer.compile.builder import INT8_NAMES, Builder, Profile
from quantizer.model.graph import layer_name
from quantizer.qdq.placement import Placement, plan_placement
from quantizer.sensitivity.search import Sensitivity, search
from quantizer.sensitivity.simulation import Simulation
from quantizer.sensitivity.sqnr import decibels, from_decibels
from service.progress import ReportProgress

SHORTEST_MS: Final = 1e-3  # of all convolutions together: a shorter profile is not meaningful
# SQNR in dB at which the search ends; keeping more layers float changes nothing that AP can tell.
ENOUGH_SQNR: Final = 25.0
# The loss of detections that a candidate may have. See docs/results/accuracy.md.
MAX_LOSS: Final = 0.07


@dataclass(frozen=True, slots=True)
class Point:
    """A set of layers that could stay float.

    loss: of the detections, predicted, 0..1. cost: the time that these layers add, as a fraction of
    the time of all convolutions in int8; None where the runtime has no profile.
    """

    kept_float: tuple[str, ...]
    loss: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The placement to build, and what led to it; None where the float model detected nothing.

    `frontier` is empty where the configuration names the SQNR to keep.
    """

    placement: Placement
    sensitivity: Sensitivity | None
    frontier: tuple[Point, ...] = ()


def decide(
    simulation: Simulation,
    keep_float: Mapping[str, str],
    builder: Builder,
    min_sqnr: float | None,
    progress: ReportProgress,
) -> Decision:
    """Keep layers float until the predicted loss of detections is within MAX_LOSS, the fewest
    milliseconds for it, or until the outputs' SQNR is at `min_sqnr` decibels, if that is given.

    `keep_float` maps the layers that stay float in any case to the reasons. Raises BuildFailed.
    """

    def plan(floats: Mapping[str, str]) -> Placement:
        return plan_placement(simulation.graph, floats, builder.qdq_format)

    floats, costs = _costs(simulation, plan(keep_float), builder)
    fixed = {**keep_float, **floats}
    all_int8 = plan(fixed)
    if not simulation.samples:
        return Decision(all_int8, None)

    def without(layers: Iterable[str]) -> Placement:
        return plan({**fixed, **dict.fromkeys(layers, "tried float")})

    def noise_of(layers: frozenset[str]) -> float:
        return simulation.noise(without(each for each in all_int8.layers if each not in layers))

    points: list[Point] = []

    def accepts(layers: tuple[str, ...]) -> bool:
        cost = sum(max(costs.get(layer, 0.0), 0.0) for layer in layers) if costs else None
        points.append(Point(layers, simulation.loss(without(layers)), cost))
        return points[-1].loss <= MAX_LOSS

    by_loss = min_sqnr is None
    budget = from_decibels(ENOUGH_SQNR if min_sqnr is None else min_sqnr)
    sensitivity = search(
        all_int8.layers, noise_of, budget, costs, progress, *([accepts] if by_loss else [])
    )
    if by_loss and (not points or {*points[-1].kept_float} != {*sensitivity.kept_float}):
        accepts(sensitivity.kept_float)
    sensitive = {
        block.layers[0]: f"sensitive: alone in int8 it leaves {decibels(block.noise):.1f} dB"
        for block in sensitivity.blocks
        if block.kept_float
    }
    return Decision(plan({**fixed, **sensitive}), sensitivity, tuple(points))


def _costs(
    simulation: Simulation, all_int8: Placement, builder: Builder
) -> tuple[dict[str, str], dict[str, float]]:
    """The layers that the runtime executes in float anyway, and what int8 saves in the others.

    The saving is a fraction of the time that all convolutions take in int8. It includes the
    conversions at both ends of a float layer.
    """
    before = builder.profile(simulation.graph.model)
    after = builder.profile(simulation.quantized(all_int8).model)
    if before is None or after is None:
        return {}, {}
    floats = {
        layer: "the runtime has no int8 kernel for it here"
        for layer in all_int8.layers
        if layer in after.executed and after.executed[layer] not in INT8_NAMES
    }
    conversions = _conversions(simulation, all_int8, builder, after)
    whole_ms = max(sum(after.ms.values()), SHORTEST_MS)
    costs = {
        layer: (before.ms.get(layer, 0.0) + conversions[layer] - after.ms.get(layer, 0.0))
        / whole_ms
        for layer in all_int8.layers
        if layer not in floats
    }
    return floats, costs


def _conversions(
    simulation: Simulation, all_int8: Placement, builder: Builder, after: Profile
) -> dict[str, float]:
    """By layer: the milliseconds of the two conversions that it needs where it alone is float.

    They are estimated by the values that it reads and writes; a graph in which every second layer
    is float tells what a value costs.
    """
    nodes = {layer_name(node): node for node in simulation.graph.nodes}
    values = {
        layer: sum(
            prod(simulation.graph.shapes.get(name, ()))
            for name in (nodes[layer].input[0], nodes[layer].output[0])
        )
        for layer in all_int8.layers
    }
    every_second = dict.fromkeys(all_int8.layers[::2], "tried float")
    kept = {each.layer: each.reason for each in all_int8.kept_float}
    mixed = plan_placement(simulation.graph, kept | every_second, builder.qdq_format)
    profile = builder.profile(simulation.quantized(mixed).model)
    added = max(0.0, profile.conversion_ms - after.conversion_ms) if profile else 0.0
    rate = added / max(1, sum(values[layer] for layer in every_second))
    return {layer: rate * count for layer, count in values.items()}
