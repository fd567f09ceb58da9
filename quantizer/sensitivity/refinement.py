"""Better upper bounds for the ranges that cost most detections.

A rule such as UH chooses a bound by the squared error of the tensor itself, and cannot know what
the rest of the network makes of it: values that are rare may decide a box, or change none. So other
bounds are tried for the tensors that the noisiest layers read, by the detection loss. Each is tried
with this tensor alone quantized: beside the noise of all others, what it changes would be chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from quantizer.qdq.placement import Placement
from quantizer.sensitivity.simulation import Simulation
from service.progress import Progress, ReportProgress

MOST: Final = 8  # ranges
# Factors of the bound that are tried first; then, around the better one of them, two more.
FIRST: Final = (0.7, 1.4)
CLOSER: Final[Mapping[float, Sequence[float]]] = {0.7: (0.5, 0.85), 1.4: (1.2, 1.7)}
# The share of its loss that a range may keep: smaller gains on few images are not found on others.
GAIN: Final = 0.85


def find_better_bounds(
    simulation: Simulation,
    placement: Placement,
    noisiest: Sequence[str],
    images: int,
    progress: ReportProgress,
) -> dict[tuple[str, ...], float]:
    """By the tensors that share a range: the factor by which its upper bound is better.

    `noisiest` are layers, the most noise first; `images` is the number of samples to try it on.
    """
    groups = _read_by(noisiest, placement, simulation.graph.input)[:MOST]
    if not groups:
        return {}
    alone = [placement.only(group) for group in groups]
    tried = simulation.resuming_for(alone, images)
    factors: dict[tuple[str, ...], float] = {}
    progress(Progress("refine", 0, len(groups)))
    found = tried.in_pairs(_best_factor, alone)
    for done, (group, factor) in enumerate(zip(groups, found, strict=True), start=1):
        if factor != 1.0:
            factors[placement.groups[group]] = factor
        progress(Progress("refine", done, len(groups)))
    return factors


def _read_by(layers: Sequence[str], placement: Placement, image: str) -> list[str]:
    """The groups of the activations that these layers read, each once; not the image's."""
    group_of = {site.tensor: site.group for site in placement.activations if site.tensor != image}
    reads = {site.layer: site.reads for site in placement.weights}
    tensors = (tensor for layer in layers for tensor in reads[layer] if tensor in group_of)
    return list(dict.fromkeys(group_of[tensor] for tensor in tensors))


def _best_factor(simulation: Simulation, alone: Placement) -> float:
    """1.0 where no other factor is better by far."""
    (tensors,) = alone.groups.values()

    def loss(factor: float) -> float:
        ranges = simulation.ranges.scaled({tensors: factor})
        return replace(simulation, ranges=ranges).loss(alone)

    losses = {factor: loss(factor) for factor in (1.0, *FIRST)}
    best = min(losses, key=lambda factor: losses[factor])
    losses |= {factor: loss(factor) for factor in CLOSER.get(best, ())}
    best = min(losses, key=lambda factor: losses[factor])
    return best if losses[best] < GAIN * losses[1.0] else 1.0
