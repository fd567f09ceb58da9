import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantizer.calibration.histogram import BINS, MAX_FINE_BINS, Histogram, histogram_of, merge

SIZES = st.integers(1, 200)
FLOATS = arrays(np.float32, SIZES, elements=st.floats(-1e6, 1e6, width=32))
# Multiples of 1/64, which no operation here rounds, so that counts can be compared exactly.
EXACT = arrays(np.int64, SIZES, elements=st.integers(-100_000, 100_000)).map(
    lambda steps: (steps / 64).astype(np.float32)
)
CONSTANTS = {
    "one zero": [0.0],
    "zeros": [0.0] * 5,
    "one value": [3.5],
    "equal": [-2.25] * 7,
    "huge": [1e38] * 3,
    "huge and negative": [-1e38, 1e38],
    "tiny": [1e-38] * 3,
    "subnormal": [1e-45, 3e-45],
    "far from zero": [1e6, 1e6 + 0.0625],
    "neighbours": [1.0, float(np.nextafter(np.float32(1), np.float32(2)))],
    "one outlier": [0.0] * 99 + [1e30],
}


def counted(values: np.ndarray) -> Histogram:
    """The histogram of all the values."""
    values = np.asarray(values, np.float32)
    return histogram_of(values, float(values.min()), float(values.max()))


def naive(values: np.ndarray, exponent: int) -> dict[int, int]:
    """Counts by bin number, one value at a time."""
    found: dict[int, int] = {}
    for value in values.tolist():
        index = int(np.floor(value * 2.0**-exponent))
        found[index] = found.get(index, 0) + 1
    return found


def occupied(histogram: Histogram) -> dict[int, int]:
    (index,) = np.nonzero(histogram.counts)
    counts = histogram.counts[index].tolist()
    return dict(zip((index + histogram.first).tolist(), counts, strict=True))


def facts(histogram: Histogram) -> tuple:
    return histogram.exponent, occupied(histogram), histogram.low, histogram.high


@given(FLOATS)
def test_every_value_is_counted_once_and_the_extremes_are_exact(values):
    histogram = counted(values)
    assert histogram.counts.sum() == values.size
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    assert len(histogram.counts) <= MAX_FINE_BINS + 1


@given(FLOATS)
def test_a_value_is_counted_at_most_a_bin_away(values):
    histogram = counted(values)
    width = 2.0**histogram.exponent
    starts = (histogram.first + np.arange(len(histogram.counts))) * width
    centres = np.repeat(starts, histogram.counts) + width / 2
    assert np.abs(np.sort(values) - centres).max() <= width


@given(EXACT)
@example(np.array([-3.0, -2.0, -2.0], np.float32))
def test_counts_are_those_of_a_loop(values):
    histogram = counted(values)
    assert occupied(histogram) == naive(values, histogram.exponent)


@given(EXACT, EXACT)
def test_merging_is_counting_the_union(a, b):
    merged = merge(counted(a), counted(b))
    union = np.concatenate([a, b])
    assert occupied(merged) == naive(union, merged.exponent)
    assert (merged.low, merged.high) == (union.min(), union.max())
    assert merged.counts.sum() == union.size


@given(FLOATS, FLOATS, FLOATS)
def test_merging_is_commutative_and_associative(a, b, c):
    a, b, c = counted(a), counted(b), counted(c)
    assert facts(merge(a, b)) == facts(merge(b, a))
    assert facts(merge(merge(a, b), c)) == facts(merge(a, merge(b, c)))


def test_coarsening_is_exact_where_grids_differ_by_many_powers():
    narrow, wide = np.arange(64, dtype=np.float32) / 64, np.array([-9e3, 9e3], np.float32)
    merged = merge(counted(narrow), counted(wide))
    assert merged.exponent > counted(narrow).exponent + 8
    assert occupied(merged) == naive(np.concatenate([narrow, wide]), merged.exponent)


def test_many_merges_keep_the_resolution():
    random = np.random.default_rng(0)
    images = [random.standard_normal(500).astype(np.float32) * (1 + i / 10) for i in range(50)]
    merged = counted(images[0])
    for image in images[1:]:
        merged = merge(merged, counted(image))
    assert len(merged.counts) + 1 >= MAX_FINE_BINS / 2
    assert merged.counts.sum() == 25_000


def test_a_sample_keeps_the_extremes_of_the_whole():
    histogram = histogram_of(np.array([0.5, 1.0], np.float32), -7.0, 9.0)
    assert (histogram.low, histogram.high, histogram.counts.sum()) == (-7.0, 9.0, 2)
    assert (histogram.bins.edges[0], histogram.bins.edges[-1]) == (-7.0, 9.0)


@given(FLOATS)
def test_bins_are_2048_from_the_lowest_to_the_highest_and_lose_nothing(values):
    bins = counted(values).bins
    assert bins.counts.shape == (BINS,)
    assert (bins.edges[0], bins.edges[-1]) == (values.min(), values.max())
    assert (bins.counts >= 0).all()
    assert bins.counts.sum() == pytest.approx(values.size)


def test_bins_follow_the_distribution():
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    bins = counted(values).bins
    expected, _ = np.histogram(values, bins.edges)
    ours, theirs = np.cumsum(bins.counts) / values.size, np.cumsum(expected) / values.size
    assert np.abs(ours - theirs).max() < 5e-4


@pytest.mark.parametrize("values", CONSTANTS.values(), ids=CONSTANTS)
def test_degenerate_tensors_are_counted_binned_and_merged(values):
    values = np.array(values, np.float32)
    histogram = counted(values)
    for one in (histogram, merge(histogram, histogram), merge(histogram, counted(values[:1]))):
        assert one.bins.counts.sum() == pytest.approx(one.counts.sum())
        assert np.isfinite(one.bins.centres).all()
    other = counted(np.array([-1.0, 0.25, 2.0], np.float32))
    assert merge(histogram, other).counts.sum() == values.size + 3
