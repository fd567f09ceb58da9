"""Find the layers that lose the most accuracy in int8, and keep the fewest of them float.

Few layers are quantized at a time, and the noise of the outputs is measured. Noise powers add up,
roughly, so the layers of a group with little noise need no closer look; the others are quantized
alone and ranked by their noise for the time that keeping them float would cost, and a bisection
finds how many of the first it takes. A model that quantizes well costs one question.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from service.progress import Progress, ReportProgress

# The least cost that is assumed of a layer, as a fraction of the mean cost of all layers. Without
# it, a cheap layer with little noise would come before an expensive one with much.
LEAST_COST: Final = 0.25
# A fraction of the budget: a layer with less noise stays int8 as it is. What then remains is spread
# over all layers, and keeping some of them float would cost time and change little.
WORTHWHILE: Final = 0.07
# Budgets of noise that justify all of int8's time: 0.05 for each hundredth of it. A layer that
# exceeds the budget by itself justifies any time.
WORTH: Final = 5.0

# Neighbouring layers that are measured together first: two thirds of YOLOv12m's have next to no
# noise.
GROUP: Final = 3

# For each set of layers, in order: the output noise with exactly these layers quantized.
Noises = Callable[[Sequence[Sequence[str]]], Iterable[float]]
Accepts = Callable[[tuple[str, ...]], bool]  # whether it is enough to keep these layers float
# Of layers, the most noise first, it quantizes some better; returns those whose noise has changed.
Improves = Callable[[Sequence[str]], Collection[str]]


@dataclass(frozen=True, slots=True)
class LayerNoise:
    """A layer, and the output noise with only this layer quantized; in a group with little noise,
    an equal share of the group's."""

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
    improve: Improves = lambda noisiest: (),
) -> Found:
    """Keep the fewest layers float that `accepts` asks for, by noise per cost.

    Where it asks for some, `improve` is called first, and may make that needless.
    `costs` maps each layer to the time it loses by staying float, as a fraction of the time of all
    layers in int8. `budget` is the noise below which the outputs are as good as float ones. More
    layers than are worth it by that are not kept float, whatever `accepts` says.
    """
    if not layers or accepts(()):
        return Found(())
    little = WORTHWHILE * budget
    noises = _measured(layers, noises_of, little, progress)
    noisy = [layer for layer in layers if noises[layer] >= little]
    if improved := improve(sorted(noisy, key=lambda layer: -noises[layer])):
        if accepts(()):
            return Found(())
        noises.update(zip(improved, noises_of([[layer] for layer in improved]), strict=True))
    least = LEAST_COST * sum(costs.values()) / len(costs)
    worthwhile = [
        layer
        for layer in layers
        if noises[layer] >= budget * min(1.0, max(WORTHWHILE, WORTH * costs[layer]))
    ]
    ranked = sorted(worthwhile, key=lambda layer: -noises[layer] / max(costs[layer], least))
    by_noise = sorted(layers, key=lambda layer: -noises[layer])
    return Found(
        tuple(ranked[: _fewest(ranked, accepts)]),
        tuple(LayerNoise(layer, noises[layer]) for layer in by_noise),
    )


def _measured(
    layers: Sequence[str], noises_of: Noises, little: float, progress: ReportProgress
) -> dict[str, float]:
    """The noise of each layer; what is below `little` may be that of its group, divided."""
    noises: dict[str, float] = {}

    def measure(groups: Sequence[Sequence[str]], enough: float) -> None:
        for group, noise in zip(groups, noises_of(groups), strict=True):
            if noise < enough:
                noises.update(dict.fromkeys(group, noise / len(group)))
                progress(Progress("precision", len(noises), len(layers)))

    progress(Progress("precision", 0, len(layers)))
    measure([layers[start : start + GROUP] for start in range(0, len(layers), GROUP)], little)
    measure([[layer] for layer in layers if layer not in noises], inf)
    return noises


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
