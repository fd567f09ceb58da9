"""Find the layers that lose the most accuracy in int8, and keep the fewest of them float.

Each layer is quantized alone, and the noise of the outputs is measured. Noise powers add up,
roughly, so the layers are ranked by their noise for the time that keeping them float would cost,
and a bisection finds how many of the first it takes. A model that quantizes well
costs one question.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.progress import Progress, ReportProgress

# The least cost that is assumed of a layer, as a fraction of the mean cost of all layers. Without
# it, a cheap layer with little noise would come before an expensive one with much.
LEAST_COST: Final = 0.25
# A fraction of the budget: a layer with less noise stays int8. What then remains is spread over all
# layers, and keeping some of them float would cost time and change little.
WORTHWHILE: Final = 0.07
# Budgets of noise that justify all of int8's time: 0.08 for each hundredth of it. A layer that
# exceeds the budget by itself justifies any time.
WORTH: Final = 8.0

# For each layer, in order: the output noise with exactly this layer quantized.
Noises = Callable[[Sequence[str]], Iterable[float]]
Accepts = Callable[[tuple[str, ...]], bool]  # whether it is enough to keep these layers float


@dataclass(frozen=True, slots=True)
class LayerNoise:
    """A layer, and the output noise with only this layer quantized."""

    layer: str
    noise: float


@dataclass(frozen=True, slots=True)
class Found:
    """The layers to keep float, the most noise for its cost first; all layers, most noise first.

    `layers` is empty where no layer has to stay float.
    """

    kept_float: tuple[str, ...]
    layers: tuple[LayerNoise, ...] = ()


def search(
    layers: Sequence[str],
    noises_of: Noises,
    budget: float,
    costs: Mapping[str, float],
    progress: ReportProgress,
    accepts: Accepts,
) -> Found:
    """Keep the fewest layers float that `accepts` asks for, by noise per cost.

    `costs` maps each layer to the time it loses by staying float, as a fraction of the time of all
    layers in int8. `budget` is the noise below which the outputs are as good as float ones. More
    layers than are worth it by that are not kept float, whatever `accepts` says.
    """
    if not layers or accepts(()):
        return Found(())
    noises: dict[str, float] = {}
    progress(Progress("precision", 0, len(layers)))
    for layer, noise in zip(layers, noises_of(layers), strict=True):
        noises[layer] = noise
        progress(Progress("precision", len(noises), len(layers)))
    least = LEAST_COST * sum(costs.values()) / len(costs)
    worthwhile = [
        layer
        for layer, noise in noises.items()
        if noise >= budget * min(1.0, max(WORTHWHILE, WORTH * costs[layer]))
    ]
    ranked = sorted(worthwhile, key=lambda layer: -noises[layer] / max(costs[layer], least))
    by_noise = sorted(layers, key=lambda layer: -noises[layer])
    return Found(
        tuple(ranked[: _fewest(ranked, accepts)]),
        tuple(LayerNoise(layer, noises[layer]) for layer in by_noise),
    )


def _fewest(ranked: Sequence[str], accepts: Accepts) -> int:
    """How many of the first layers it takes; all where not even they are accepted."""
    too_few, enough = 0, len(ranked)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if accepts(tuple(ranked[:middle])):
            enough = middle
        else:
            too_few = middle
    return enough
