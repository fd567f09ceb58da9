"""The accuracy gate: which variants may be the default of a build, and which of them is.

A variant is accepted when it falls behind fp32 by no more than a limit: in AP where annotated
images are given, in agreement with fp32's boxes elsewhere. fp32 is always accepted. The default is
the variant that the configuration names, if it is accepted, or the fastest accepted one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self

from quantizer.evaluation.comparison import Comparison
from service.manifest import Variant
from service.vision.agreement import Agreement

# Without annotations: the share of boxes that may lose their partner or their score. YOLOv5n and
# YOLOX-nano, whose AP int8 hardly changes, come to 0.06.
AGREEMENT_DROP: Final = 0.15
AP_DROP: Final = 0.01  # with annotations

Measure = Literal["agreement", "ap"]


@dataclass(frozen=True, slots=True)
class GateResult:
    """How far a variant falls behind fp32 in `measure`, and how far it may; part of report.json."""

    measure: Measure
    drop: float  # to four decimals
    limit: float
    accepted: bool

    @classmethod
    def of(cls, measure: Measure, drop: float, limit: float) -> Self:
        return cls(measure, round(drop, 4), limit, drop <= limit)

    @property
    def reason(self) -> str:
        """Why a variant is rejected, in a sentence."""
        what = {
            "agreement": "its boxes disagree with fp32's by",
            "ap": "its AP is below fp32's by",
        }[self.measure]
        return f"{what} {self.drop:.3f}, more than {self.limit:g}"


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """The measured accuracy of a build's variants, and the gate's result for each of them."""

    comparison: Comparison
    ap: Mapping[str, float] | None  # by variant; None without annotated images
    results: Mapping[str, GateResult]  # of every variant but fp32

    @property
    def rejected(self) -> dict[str, str]:
        """The variants that may not be the default, and why."""
        return {name: result.reason for name, result in self.results.items() if not result.accepted}


def gate(
    agreements: Mapping[str, Agreement], ap: Mapping[str, float] | None, max_drop: float | None
) -> dict[str, GateResult]:
    """The result of every variant but fp32; `max_drop` replaces the measure's own limit."""
    if ap is None:
        limit = AGREEMENT_DROP if max_drop is None else max_drop
        return {name: GateResult.of("agreement", a.drop, limit) for name, a in agreements.items()}
    limit = AP_DROP if max_drop is None else max_drop
    return {
        name: GateResult.of("ap", ap["fp32"] - each, limit)
        for name, each in ap.items()
        if name != "fp32"
    }


def choose_default(
    results: Mapping[str, GateResult],
    ms: Mapping[str, float],
    configured: str,
    variants: Mapping[str, Variant] | None = None,
) -> str:
    """The default variant; `ms`: milliseconds of one inference, `configured`: "auto" or a name.

    With `variants` the name is a precision, which several devices may have: the fastest of these.
    Without times, for a GPU elsewhere, it is the configured one or the first accepted of int8, fp16
    and fp32, until that GPU has timed them.
    """
    names = list(ms) or ["int8", "fp16", "fp32", "fp8"]
    accepted = [name for name in names if name not in results or results[name].accepted]
    precisions = {name: each.precision for name, each in (variants or {}).items()}
    wanted = [name for name in accepted if precisions.get(name, name) == configured]
    return min(wanted or accepted, key=lambda name: ms.get(name, 0.0))
