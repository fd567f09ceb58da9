"""The ways to quantize that a study compares.

Source of the tables: Q-YOLO (arXiv 2307.04816), tables 1 to 3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from quantizer.calibration.ranges import RANGE_RULES, RangeRule
from quantizer.int8 import WeightRule

ALL_BITS: Final = (8, 6, 4)


@dataclass(frozen=True, slots=True)
class WeightMethod:
    """How weights become integers.

    Adaptive rounding needs bias correction, to which it leaves the mean of the errors.
    """

    clipping: WeightRule = "minmax"
    bias_correction: bool = False
    rounding: Literal["nearest", "adaptive"] = "nearest"


AS_THE_PAPER: Final = WeightMethod()
BETTER_WEIGHTS: Final = (
    WeightMethod("mse"),
    WeightMethod(bias_correction=True),
    WeightMethod("mse", bias_correction=True),
    WeightMethod(bias_correction=True, rounding="adaptive"),
    WeightMethod("mse", bias_correction=True, rounding="adaptive"),
)
BEST_WEIGHTS: Final = BETTER_WEIGHTS[-1]


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to quantize; None keeps weights or activations float."""

    weights: int | None = None  # bits
    activations: int | None = None
    ranges: RangeRule = "uh"
    symmetric: bool = False
    method: WeightMethod = AS_THE_PAPER


def settings(bits: Sequence[int] = ALL_BITS) -> Iterator[Setting]:
    """The float model, then the paper's three tables, then UH with better weights."""
    yield Setting()
    for b in bits:
        for rule in RANGE_RULES:
            for symmetric in (False, True):
                yield Setting(b, b, rule, symmetric)
                yield Setting(None, b, rule, symmetric)
        yield Setting(b, None)
        for method in BETTER_WEIGHTS:
            yield Setting(b, b, method=method)
        yield Setting(b, None, method=BEST_WEIGHTS)
        yield Setting(b, b, "percentile", method=BEST_WEIGHTS)
