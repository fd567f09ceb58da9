"""Find the layers that lose the most accuracy in int8, in few executions, and keep them float.

Layers are tried in blocks of consecutive ones, with only the block quantized. The block with the
most output noise for the time that keeping it float would cost is split in two, until one layer is
left: that layer stays float, and the next block follows. Only noisy blocks are split, so a model
that quantizes well costs one execution.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.progress import Progress, ReportProgress

# The least cost that is assumed of a layer, as a fraction of the mean cost of all layers. Without
# it, a cheap layer with little noise would come before an expensive one with much.
LEAST_COST: Final = 0.25
# A fraction of the budget: a block with less noise is not split. What then remains is spread over
# all layers, and keeping some of them float would cost time and change little.
WORTHWHILE: Final = 0.07
# Budgets of noise that justify all of int8's time: 0.3 for each hundredth of it. A layer that
# exceeds the budget by itself justifies any time.
WORTH: Final = 30.0

# `accepts` is asked again when this many times as many layers are kept float.
GROWTH: Final = 1.4

Noise = Callable[[frozenset[str]], float]  # the output noise with exactly these layers quantized
Accepts = Callable[[tuple[str, ...]], bool]  # whether it is enough to keep these layers float


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive layers, and the output noise with only these quantized."""

    layers: tuple[str, ...]
    noise: float
    kept_float: bool = False  # true only for a single layer


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The result: output noise `before`, all layers in int8, and `after`, with some kept float."""

    budget: float
    before: float
    after: float
    blocks: tuple[Block, ...]  # a partition of the layers, most noise first
    executions: int

    @property
    def kept_float(self) -> tuple[str, ...]:
        """The layers to keep float, most noise first."""
        return tuple(block.layers[0] for block in self.blocks if block.kept_float)


def search(
    layers: Sequence[str],
    noise_of: Noise,
    budget: float,
    costs: Mapping[str, float],
    progress: ReportProgress,
    accepts: Accepts = lambda kept_float: False,
) -> Sensitivity:
    """Keep the fewest layers float that bring the noise below the budget, by noise per cost.

    The search ends earlier where `accepts` says so, which is asked at first and then ever less
    often.

    `costs` maps each layer to the time it loses by staying float, as a fraction of the time of all
    layers in int8; layers that it does not name cost nothing. The budget is not reached where the
    noise is spread thinly, or where keeping layers float costs more than WORTH allows.
    """
    known = [max(costs.get(layer, 0.0), 0.0) for layer in layers]
    least_cost = LEAST_COST * sum(known) / max(len(known), 1) or 1.0
    return _Search(noise_of, budget, costs, least_cost, progress, accepts).run(tuple(layers))


@dataclass(slots=True)
class _Search:
    _noise_of: Noise
    _budget: float
    _costs: Mapping[str, float]
    _least_cost: float
    _progress: ReportProgress
    _accepts: Accepts
    _executions: int = 0
    _next_asked: int = 0  # layers kept float

    def run(self, layers: tuple[str, ...]) -> Sensitivity:
        before = after = self._measure(layers)
        waiting = [self._entry(Block(layers, before))] if layers else []
        kept_float: list[Block] = []
        settled: list[Block] = []
        while waiting and after > self._budget:
            if self._is_accepted(kept_float):
                after = self._measure_without(kept_float, layers)
                break
            worst = heapq.heappop(waiting)[-1]
            if worst.noise < self._least_worthwhile(worst):
                settled.append(worst)
            elif len(worst.layers) > 1:
                middle = len(worst.layers) // 2
                for half in (worst.layers[:middle], worst.layers[middle:]):
                    heapq.heappush(waiting, self._entry(Block(half, self._measure(half))))
            else:
                kept_float.append(Block(worst.layers, worst.noise, kept_float=True))
            left = [*settled, *(entry[-1] for entry in waiting)]
            # Noise powers add up, roughly: an execution is worth it only where their sum promises
            # to meet the budget, or where no block is left.
            if kept_float and (not waiting or sum(block.noise for block in left) <= self._budget):
                after = self._measure_without(kept_float, layers)
        blocks = [*kept_float, *settled, *(entry[-1] for entry in waiting)]
        ranked = tuple(sorted(blocks, key=lambda block: -block.noise))
        return Sensitivity(self._budget, before, after, ranked, self._executions)

    def _is_accepted(self, kept_float: Sequence[Block]) -> bool:
        if len(kept_float) < self._next_asked:
            return False
        self._next_asked = int(len(kept_float) * GROWTH) + 1
        return self._accepts(tuple(block.layers[0] for block in kept_float))

    def _measure_without(self, kept_float: Sequence[Block], layers: tuple[str, ...]) -> float:
        floats = {block.layers[0] for block in kept_float}
        return self._measure(tuple(layer for layer in layers if layer not in floats))

    def _measure(self, layers: tuple[str, ...]) -> float:
        noise = self._noise_of(frozenset(layers)) if layers else 0.0
        self._executions += 1
        self._progress(Progress("precision", self._executions))
        return noise

    def _least_worthwhile(self, block: Block) -> float:
        """The noise from which on the block is worth a split, or its one layer is kept float."""
        cheapest = min(self._costs.get(layer, 0.0) for layer in block.layers)
        return self._budget * min(1.0, max(WORTHWHILE, WORTH * cheapest))

    def _entry(self, block: Block) -> tuple[float, int, Block]:
        """For the heap: the most noise per cost first, then in the order of measurement."""
        cheapest = min(max(self._costs.get(layer, 0.0), self._least_cost) for layer in block.layers)
        return (-block.noise / cheapest, self._executions, block)
