"""The accuracy guard: which variants may answer in place of fp32."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from quantizer.evaluation.accuracy import Accuracy
from service.vision.agreement import Agreement

# Without annotations: the share of boxes that may lose their partner or their score. YOLOv5n and
# YOLOX-nano, whose AP int8 hardly changes, come to 0.06.
AGREEMENT_DROP: Final = 0.15
AP_DROP: Final = 0.01  # with annotations

Measure = Literal["agreement", "ap"]


@dataclass(frozen=True, slots=True)
class GateResult:
    """How far a variant falls behind fp32, and how far it may."""

    measure: Measure
    drop: float
    limit: float

    @property
    def accepted(self) -> bool:
        return self.drop <= self.limit

    @property
    def reason(self) -> str:
        """Why a variant is rejected, in a sentence."""
        what = {
            "agreement": "its boxes disagree with fp32's by",
            "ap": "its AP is below fp32's by",
        }[self.measure]
        return f"{what} {self.drop:.3f}, more than {self.limit:g}"


def judge(
    agreements: Mapping[str, Agreement],
    accuracies: Mapping[str, Accuracy] | None,
    max_drop: float | None,
) -> dict[str, GateResult]:
    """A verdict for every variant but fp32: by AP where it was measured, else by agreement."""
    if accuracies is None:
        limit = AGREEMENT_DROP if max_drop is None else max_drop
        return {name: GateResult("agreement", a.drop, limit) for name, a in agreements.items()}
    limit = AP_DROP if max_drop is None else max_drop
    best = accuracies["fp32"].ap
    return {
        name: GateResult("ap", best - accuracy.ap, limit)
        for name, accuracy in accuracies.items()
        if name != "fp32"
    }
