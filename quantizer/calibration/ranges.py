"""Rules that choose the range of an activation from its histogram: UH and four others."""

from collections.abc import Callable
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from quantizer.calibration.histogram import BINS, Bins, Histogram
from quantizer.int8 import Range, Scheme, grid_of

RangeRule = Literal["uh", "minmax", "percentile", "mse", "entropy"]

START_BIN: Final = 128  # the paper's search starts here: a range below 1/16 of the span never wins
PERCENTILE: Final = 99.99  # the paper's baseline
MSE_ROUNDS: Final = 4  # alternations of the two-sided search; it converges after two or three
ROWS_AT_ONCE: Final = 64  # candidates per block: temporaries of 64 x 2048 floats fit the cache


def unilateral_histogram(histogram: Histogram, floor: float | None, scheme: Scheme) -> Range:
    """UH: the lower bound is analytic, the upper one minimises the error.

    `floor` is the analytic bound; where it is None, the observed minimum is the lower bound.
    The error is the count-weighted squared error over the bins' centres, clipping included, as the
    published code computes it (the paper's algorithm 1 compares normalised histograms instead).
    """
    low = histogram.low if floor is None else floor
    bins = histogram.bins
    highs = bins.edges[START_BIN:]
    errors = squared_errors(bins, np.full_like(highs, low), highs, scheme)
    return Range(low, float(highs[errors.argmin()]))


def minmax(histogram: Histogram, floor: float | None, scheme: Scheme) -> Range:
    """The range of the observed values."""
    return Range(histogram.low, histogram.high)


def percentile(histogram: Histogram, floor: float | None, scheme: Scheme) -> Range:
    """All but the outermost 0.01 % on each side."""
    bins = histogram.bins
    share = np.concatenate([[0.0], np.cumsum(bins.counts)]) / bins.counts.sum()
    tail = 1 - PERCENTILE / 100
    low, high = np.interp([tail, 1 - tail], share, bins.edges)
    return Range(float(low), float(high))


def two_sided_mse(histogram: Histogram, floor: float | None, scheme: Scheme) -> Range:
    """Both bounds minimise the squared error, alternately."""
    bins = histogram.bins
    highs, lows = bins.edges[START_BIN:], bins.edges[:-START_BIN]
    low, high = histogram.low, histogram.high
    for _ in range(MSE_ROUNDS):
        before = (low, high)
        errors = squared_errors(bins, np.full_like(highs, low), highs, scheme)
        high = float(highs[errors.argmin()])
        errors = squared_errors(bins, lows, np.full_like(lows, high), scheme)
        low = float(lows[errors.argmin()])
        if (low, high) == before:
            break
    return Range(low, high)


def entropy(histogram: Histogram, floor: float | None, scheme: Scheme) -> Range:
    """TensorRT's calibration: the threshold on |x| whose coarse histogram diverges least (KL).

    Source: S. Migacz, "8-bit inference with TensorRT", GTC 2017.
    """
    magnitudes = _magnitudes(histogram.bins)
    levels = 2 ** (scheme.bits - 1)
    limits = np.arange(levels, BINS + 1)
    best = limits[_divergences(magnitudes, limits, levels).argmin()]
    peak = max(abs(histogram.low), abs(histogram.high))
    threshold = float(best) / BINS * peak
    return Range(max(histogram.low, -threshold), min(histogram.high, threshold))


Rule = Callable[[Histogram, float | None, Scheme], Range]

RANGE_RULES: Final[dict[RangeRule, Rule]] = {
    "uh": unilateral_histogram,
    "minmax": minmax,
    "percentile": percentile,
    "mse": two_sided_mse,
    "entropy": entropy,
}


def squared_errors(
    bins: Bins, lows: NDArray[np.float64], highs: NDArray[np.float64], scheme: Scheme
) -> NDArray[np.float64]:
    """Sum of squared errors of quantizing the bins' centres with each of K ranges: f64[K].

    Computed in units of the largest magnitude, so that no square leaves float32.
    """
    tiny = np.finfo(np.float32).tiny
    peak = max(abs(float(bins.edges[0])), abs(float(bins.edges[-1])), float(tiny))
    occupied = bins.counts > 0
    centres = (bins.centres[occupied] / peak).astype(np.float32)
    counts = bins.counts[occupied]
    scales, zeros = grid_of(lows, highs, scheme)
    scales = np.maximum(scales / peak, tiny)
    errors = np.empty(len(scales))
    for start in range(0, len(scales), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        scale = scales[block, None].astype(np.float32)
        zero = zeros[block, None].astype(np.float32)
        with np.errstate(over="ignore"):  # steps of a range without width; they are clipped next
            error = centres / scale
        np.rint(error, out=error)
        np.clip(error, scheme.lowest - zero, scheme.highest - zero, out=error)
        error *= scale
        error -= centres
        np.square(error, out=error)
        errors[block] = error @ counts
    return errors * peak**2


def _magnitudes(bins: Bins) -> NDArray[np.float64]:
    """The histogram of |x| on BINS bins from zero to the largest magnitude."""
    peak = max(np.abs(bins.edges).max(), np.finfo(np.float32).tiny)
    index = np.minimum((np.abs(bins.centres) / peak * BINS).astype(int), BINS - 1)
    return np.bincount(index, weights=bins.counts, minlength=BINS).astype(np.float64)


def _divergences(
    counts: NDArray[np.float64], limits: NDArray[np.int64], levels: int
) -> NDArray[np.float64]:
    """KL divergence between the histogram clipped at each limit and the same with `levels` levels.

    The last bin below a limit gets the mass that is clipped. A level covers consecutive bins, and
    its mass is that of the occupied ones, in equal parts.
    """
    total, last = counts.sum(), counts[limits - 1]
    kept = _before(counts)[limits]
    clipped = np.maximum(total - kept, 0.0)
    first_bins = -(-np.arange(levels + 1) * limits[:, None] // levels)  # of each level, and the end
    members = np.diff(_before(counts > 0)[first_bins])
    mass = np.where(members > 0, np.diff(_before(counts)[first_bins]), 0.0)
    # Clipping may move mass to an empty bin, which has no level.
    least = np.where((last == 0) & (clipped > 0), np.finfo(np.float32).eps, 0.0)
    shares = mass / np.maximum(members * kept[:, None], np.finfo(float).tiny)
    q = np.maximum(shares, least[:, None])
    q_last = np.where(last > 0, q[:, -1], least)
    fuller = last + clipped
    p_log_p = _before(_times_log(counts, counts))[limits]
    p_log_p += _times_log(fuller, fuller) - _times_log(last, last)
    p_log_q = _times_log(mass, q).sum(axis=1) + _times_log(clipped, q_last)
    divergences: NDArray[np.float64] = (p_log_p - p_log_q) / total - np.log(total)
    return divergences


def _before(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """The sum of the values before each index, f64[N+1]."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _times_log(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """x * log(y), and 0 where y is 0."""
    return x * np.log(np.where(y > 0, y, 1.0))
