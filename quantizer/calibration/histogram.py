"""The histogram of a tensor's signed values, on a grid that any two histograms share.

Bins are 2**exponent wide and start at multiples of their width, so merging is exact: two bins of
one exponent are one bin of the next. Each image may thus have its own range, and one pass suffices.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, log2
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.vision.detections import Floats

BINS: Final = 2048  # of the histogram on which a range is searched (the paper)
# The grid is 2 to 4 times finer, so that the error of resampling it to BINS is negligible.
MAX_FINE_BINS: Final = 4 * BINS
MIN_EXPONENT: Final = -100


@dataclass(frozen=True, eq=False)
class Histogram:
    """counts i64[n], bin k spanning [(first + k), (first + k + 1)) * 2**exponent.

    `low` and `high` are the exact extremes.
    """

    counts: NDArray[np.int64]
    first: int
    exponent: int
    low: float
    high: float

    @cached_property
    def bins(self) -> "Bins":
        """Resampled to BINS equal bins from the smallest value to the largest."""
        width = 2.0**self.exponent
        edges = (self.first + np.arange(len(self.counts) + 1)) * width
        cumulative = np.concatenate([[0.0], np.cumsum(self.counts, dtype=np.float64)])
        new_edges = np.linspace(self.low, self.high, BINS + 1)
        below = np.interp(new_edges, edges, cumulative)
        below[0], below[-1] = 0.0, cumulative[-1]
        return Bins(np.diff(below), new_edges)


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """counts f64[BINS] between edges f64[BINS+1]."""

    counts: NDArray[np.float64]
    edges: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.float64]:
        return (self.edges[:-1] + self.edges[1:]) / 2


def histogram_of(values: Floats, low: float, high: float, weight: int = 1) -> Histogram:
    """Count `values`, each `weight` times; they belong to a tensor that spans low..high."""
    exponent = _exponent_for(low, high)
    scale = 2.0**-exponent
    first = floor(low * scale)
    positions = np.multiply(values, np.float32(scale), dtype=np.float32)
    np.subtract(positions, np.float32(first), out=positions)
    last = floor(high * scale) - first
    counts = np.bincount(positions.ravel().astype(np.int32), minlength=last + 1)
    return Histogram(counts * weight, first, exponent, low, high)


def merge(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of both sets of values; commutative, and exact in its total."""
    low, high = min(a.low, b.low), max(a.high, b.high)
    exponent = max(a.exponent, b.exponent, _exponent_for(low, high))
    a, b = _coarsened(a, exponent), _coarsened(b, exponent)
    first = min(a.first, b.first)
    end = max(a.first + len(a.counts), b.first + len(b.counts))
    counts = np.zeros(end - first, np.int64)
    for part in (a, b):
        offset = part.first - first
        counts[offset : offset + len(part.counts)] += part.counts
    return Histogram(counts, first, exponent, low, high)


def _exponent_for(low: float, high: float) -> int:
    """The finest grid on which low..high takes at most MAX_FINE_BINS bins."""
    span = high - low
    if span <= 0:
        span = max(abs(low), 1.0)
    return max(MIN_EXPONENT, ceil(log2(span / (MAX_FINE_BINS - 1))))


def _coarsened(histogram: Histogram, exponent: int) -> Histogram:
    shift = min(exponent - histogram.exponent, 63)  # then only the sign is left
    if shift == 0:
        return histogram
    index = (histogram.first + np.arange(len(histogram.counts), dtype=np.int64)) >> shift
    first = int(index[0])
    counts = np.zeros(int(index[-1]) - first + 1, np.int64)
    np.add.at(counts, index - first, histogram.counts)
    return Histogram(counts, first, exponent, histogram.low, histogram.high)
