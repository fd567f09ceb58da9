"""Where the time of an engine goes: how fast its convolutions are, and what stands around them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

from quantizer.compile.operations import Operation


@dataclass(frozen=True, slots=True)
class KindReport:
    """The operations of one kind that read one precision; the names are the runtime's."""

    kind: str
    precision: str
    count: int
    ms: float
    share: float  # of the time of all operations
    gmac: float  # 10^9 multiply-accumulates of convolutions


@dataclass(frozen=True, slots=True)
class ExecutionReport:
    """The operations of one inference; `ms` is the sum of their times.

    `kinds` are in order of time, the longest first.
    """

    ms: float
    gmac: float  # of the convolutions
    gmac_per_s: float  # over the time of all operations
    outside_convolutions: float  # share of the time
    kinds: tuple[KindReport, ...]

    @classmethod
    def of(cls, operations: Sequence[Operation]) -> Self | None:
        """None where the runtime reports no times."""
        whole = sum(each.ms for each in operations)
        if whole == 0:
            return None

        def kind_of(operation: Operation) -> tuple[str, str]:
            return operation.kind, operation.precision

        groups = groupby(sorted(operations, key=kind_of), kind_of)
        kinds = [_kind(*names, list(members), whole) for names, members in groups]
        around = sum(each.ms for each in operations if not each.convolves)
        macs = sum(each.macs for each in operations)
        return cls(
            ms=round(whole, 3),
            gmac=round(macs / 1e9, 3),
            gmac_per_s=round(macs / whole / 1e6, 1),
            outside_convolutions=round(around / whole, 4),
            kinds=tuple(sorted(kinds, key=lambda each: -each.ms)),
        )


def _kind(kind: str, precision: str, members: list[Operation], whole: float) -> KindReport:
    ms = sum(each.ms for each in members)
    return KindReport(
        kind=kind,
        precision=precision,
        count=len(members),
        ms=round(ms, 3),
        share=round(ms / whole, 4),
        gmac=round(sum(each.macs for each in members) / 1e9, 3),
    )
