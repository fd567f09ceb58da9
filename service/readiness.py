"""How far the server is from answering: what /readyz says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["building", "loading", "ready", "failed", "stopping"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of long work: `done` of `total` units of `phase`; total 0 means unknown."""

    phase: str
    done: int = 0
    total: int = 0


ReportProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Readiness:
    """The server's state and, while it is building, where the build is."""

    state: State
    progress: Progress | None = None
    detail: str = ""
