"""Boxes of single frames -> how many objects of each class are there."""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """The number of objects of a class has changed."""

    class_name: str
    before: int
    count: int


class Occupancy:
    """Counts that neither a single false box nor a single missed object changes.

    A count rises to what each of `confirm` frames in a row showed. It falls to the largest of the
    last `cooldown_s` seconds.
    """

    def __init__(self, confirm: int, cooldown_s: float) -> None:
        self._cooldown_s = cooldown_s
        self._recent: dict[str, deque[int]] = defaultdict(lambda: deque([0] * confirm, confirm))
        # Time and count, as long as no later count is as large: the first one is the largest.
        self._largest: dict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self._counts: dict[str, int] = defaultdict(int)

    def update(self, seen: Mapping[str, int], now: float) -> list[Change]:
        """What changes with a frame of time `now`, in seconds, that shows `seen` of each class."""
        changes = []
        for name in {*seen, *self._recent}:
            count = self._count(name, seen.get(name, 0), now)
            before, self._counts[name] = self._counts[name], count
            if count != before:
                changes.append(Change(name, before, count))
        return sorted(changes, key=lambda change: change.class_name)

    def _count(self, name: str, seen: int, now: float) -> int:
        self._recent[name].append(seen)
        confirmed, largest = min(self._recent[name]), self._largest[name]
        while largest and largest[-1][1] <= confirmed:
            largest.pop()
        largest.append((now, confirmed))
        while largest[0][0] <= now - self._cooldown_s:
            largest.popleft()
        return largest[0][1]
