"""How well the chosen ranges represent the quantized activations."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from quantizer.calibration.histogram import Histogram
from quantizer.calibration.ranges import squared_errors
from quantizer.int8 import Scheme
from quantizer.qdq.placement import ActivationSite
from quantizer.qdq.quantize import GroupRange


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One quantized activation.

    `clipped` is the share of values outside the represented range, `sqnr_db` the
    signal-to-quantization-noise ratio over the calibration images. `factor` is what the upper bound
    that the rule chose was multiplied by.
    """

    tensor: str
    group: str  # tensors of one group share a range
    observed_low: float
    observed_high: float
    floor: float | None  # the analytic lower bound, where the tensor has one
    low: float
    high: float
    scale: float
    zero_point: int
    clipped: float
    sqnr_db: float | None  # None for a tensor that is always zero
    factor: float

    @classmethod
    def of(
        cls, site: ActivationSite, histogram: Histogram, chosen: GroupRange, scheme: Scheme
    ) -> Self:
        scale, zero = float(chosen.params.scale), int(chosen.params.zero_point)
        low, high = (scheme.lowest - zero) * scale, (scheme.highest - zero) * scale
        bins, bounds = histogram.bins, chosen.bounds
        outside = (bins.centres < low - scale / 2) | (bins.centres > high + scale / 2)
        signal = float(bins.counts @ np.square(bins.centres))
        (noise,) = squared_errors(bins, np.array([bounds.low]), np.array([bounds.high]), scheme)
        return cls(
            tensor=site.tensor,
            group=site.group,
            observed_low=histogram.low,
            observed_high=histogram.high,
            floor=chosen.floor,
            low=low,
            high=high,
            scale=scale,
            zero_point=zero,
            clipped=float(bins.counts[outside].sum() / bins.counts.sum()),
            sqnr_db=round(10 * float(np.log10(signal / noise)), 2) if signal and noise else None,
            factor=chosen.factor,
        )
