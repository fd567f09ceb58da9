"""Which layers hurt when they are quantized, found with few executions, and which to leave float.

Layers are tried in blocks of neighbours. The block that hurts most for the time that freeing it
would cost is split in two until a single layer is left, and that layer stays float; then the next.
Only what hurts is looked at closely, so a model that quantizes well costs one execution.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.progress import Progress, ReportProgress

# The least a layer is taken to cost, as a share of what a layer costs on average: freeing a cheap
# layer that hardly hurts must not look like a bargain.
LEAST_COST: Final = 0.25
# Of the budget: a block with less noise is not worth a closer look. What is left then is spread
# over all layers, and freeing some of them would cost time and change little.
WORTHWHILE: Final = 0.07
# Budgets of noise that are worth all of int8's time: 0.3 for each hundredth of it. A layer that by
# itself breaks the budget is worth any time.
WORTH: Final = 30.0

Noise = Callable[[frozenset[str]], float]  # with exactly these layers quantized


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring layers and the output noise with nothing but them quantized."""

    layers: tuple[str, ...]
    noise: float
    freed: bool = False  # one layer, left float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What was tried: the noise `before`, all layers quantized, and `after`, without the freed."""

    budget: float
    before: float
    after: float
    blocks: tuple[Block, ...]  # a partition of the layers, worst first
    executions: int

    @property
    def freed(self) -> tuple[str, ...]:
        """The layers to leave float, worst first."""
        return tuple(block.layers[0] for block in self.blocks if block.freed)


def search(
    layers: Sequence[str],
    noise_of: Noise,
    budget: float,
    costs: Mapping[str, float],
    progress: ReportProgress,
) -> Sensitivity:
    """Free the fewest layers that bring the noise under the budget, by noise for each millisecond.

    `costs` holds what each layer loses by staying float, as a share of the time of all layers in
    int8; layers not named cost nothing. Where the noise is spread thinly, or freeing costs more
    than it is worth, the budget is not reached: see WORTHWHILE and WORTH.
    """
    return _Search(noise_of, budget, costs, progress).run(tuple(layers))


class _Search:
    def __init__(
        self, noise_of: Noise, budget: float, costs: Mapping[str, float], progress: ReportProgress
    ) -> None:
        self._noise_of = noise_of
        self._budget = budget
        self._costs = costs
        self._progress = progress
        self._floor = 0.0
        self._executions = 0

    def run(self, layers: tuple[str, ...]) -> Sensitivity:
        known = [max(self._costs.get(layer, 0.0), 0.0) for layer in layers]
        self._floor = LEAST_COST * sum(known) / max(len(known), 1) or 1.0
        before = after = self._measure(layers)
        waiting = [self._entry(Block(layers, before))] if layers else []
        freed: list[Block] = []
        settled: list[Block] = []
        while waiting and after > self._budget:
            worst = heapq.heappop(waiting)[-1]
            if worst.noise < self._least_of_worth(worst):
                settled.append(worst)
            elif len(worst.layers) > 1:
                middle = len(worst.layers) // 2
                for half in (worst.layers[:middle], worst.layers[middle:]):
                    heapq.heappush(waiting, self._entry(Block(half, self._measure(half))))
            else:
                freed.append(Block(worst.layers, worst.noise, freed=True))
            left = [*settled, *(entry[-1] for entry in waiting)]
            # They add up, roughly: only where that promises enough, or nothing more can be done, is
            # it worth measuring.
            if freed and (not waiting or sum(block.noise for block in left) <= self._budget):
                gone = {block.layers[0] for block in freed}
                after = self._measure(tuple(layer for layer in layers if layer not in gone))
        blocks = [*freed, *settled, *(entry[-1] for entry in waiting)]
        ranked = tuple(sorted(blocks, key=lambda block: -block.noise))
        return Sensitivity(self._budget, before, after, ranked, self._executions)

    def _measure(self, layers: tuple[str, ...]) -> float:
        noise = self._noise_of(frozenset(layers)) if layers else 0.0
        self._executions += 1
        self._progress(Progress("precision", self._executions))
        return noise

    def _least_of_worth(self, block: Block) -> float:
        cheapest = min(self._costs.get(layer, 0.0) for layer in block.layers)
        return self._budget * min(1.0, max(WORTHWHILE, WORTH * cheapest))

    def _entry(self, block: Block) -> tuple[float, int, Block]:
        """For a heap: what promises most noise for its cost comes first, then what came first."""
        cheapest = min(max(self._costs.get(layer, 0.0), self._floor) for layer in block.layers)
        return (-block.noise / cheapest, self._executions, block)
