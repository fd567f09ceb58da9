"""Decide which layers stay float: those without an int8 kernel, then the most sensitive."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from quantizer.compile.builder import INT8_NAMES, Builder
from quantizer.qdq.placement import Placement, plan_placement
from quantizer.sensitivity.search import Sensitivity, search
from quantizer.sensitivity.simulation import Simulation
from quantizer.sensitivity.sqnr import decibels, from_decibels
from service.progress import ReportProgress

SHORTEST_MS: Final = 1e-3  # of all convolutions together: a shorter profile is not meaningful


@dataclass(frozen=True, slots=True)
class Decision:
    """The placement to build, and the search that led to it; None where it had no samples."""

    placement: Placement
    sensitivity: Sensitivity | None


def decide(
    simulation: Simulation,
    keep_float: Mapping[str, str],
    builder: Builder,
    min_sqnr: float,
    progress: ReportProgress,
) -> Decision:
    """Keep the outputs' SQNR at `min_sqnr` decibels for the fewest milliseconds.

    `keep_float` maps the layers that stay float in any case to the reasons. Raises BuildFailed.
    """

    def plan(floats: Mapping[str, str]) -> Placement:
        return plan_placement(simulation.graph, floats, builder.qdq_format)

    floats, costs = _costs(simulation, plan(keep_float), builder)
    fixed = {**keep_float, **floats}
    all_int8 = plan(fixed)
    if not simulation.samples:
        return Decision(all_int8, None)

    def noise_of(layers: frozenset[str]) -> float:
        others = {layer: "tried float" for layer in all_int8.layers if layer not in layers}
        return simulation.noise(plan({**fixed, **others}))

    sensitivity = search(all_int8.layers, noise_of, from_decibels(min_sqnr), costs, progress)
    sensitive = {
        block.layers[0]: f"sensitive: alone in int8 it leaves {decibels(block.noise):.1f} dB"
        for block in sensitivity.blocks
        if block.kept_float
    }
    return Decision(plan({**fixed, **sensitive}), sensitivity)


def _costs(
    simulation: Simulation, all_int8: Placement, builder: Builder
) -> tuple[dict[str, str], dict[str, float]]:
    """The layers that the runtime executes in float anyway, and what int8 saves in the others.

    The saving is a fraction of the time that all convolutions take in int8.
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
    whole_ms = max(sum(after.ms.values()), SHORTEST_MS)
    costs = {
        layer: (before.ms.get(layer, 0.0) - after.ms.get(layer, 0.0)) / whole_ms
        for layer in all_int8.layers
        if layer not in floats
    }
    return floats, costs
