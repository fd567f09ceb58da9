"""The progress of a build or a download."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of `phase`; total 0 means unknown."""

    phase: str
    done: int = 0
    total: int = 0


ReportProgress = Callable[[Progress], None]
