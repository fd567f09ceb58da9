import math

import numpy as np
import pytest
from hypothesis import given, settings

from quantizer.calibration.histogram import BINS, Bins, Histogram
from quantizer.calibration.ranges import RANGE_RULES, START_BIN, squared_errors
from quantizer.int8 import Range, Scheme, activation_params, dequantize_array, quantize_array
from tests.quantizer.calibration.test_histogram import CONSTANTS, FLOATS, counted
from tests.quantizer.test_int8 import schemes

SILU = -0.2785


def normal(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(count).astype(np.float32)


def tails(count: int) -> np.ndarray:
    return np.random.default_rng(2).laplace(size=count).astype(np.float32) * 2


WIDE = normal(5_000) * 3
SAMPLES = {"silu": WIDE / (1 + np.exp(-WIDE)), "bell": normal(5_000), "tails": tails(5_000)}
samples = pytest.mark.parametrize("values", SAMPLES.values(), ids=SAMPLES)


def error_of(values: np.ndarray, bounds: Range, scheme: Scheme) -> float:
    """The squared error of the values themselves, by the quantizer's own arithmetic."""
    params = activation_params(bounds, scheme)
    real = dequantize_array(quantize_array(values, params), params)
    return float(np.square(values.astype(np.float64) - real).sum())


def naive_error(bins: Bins, low: float, high: float, scheme: Scheme) -> float:
    """The squared error over the bins, one bin at a time."""
    low, high = min(low, 0.0), max(high, 0.0)
    if scheme.symmetric:
        scale, zero = max(high, -low) / scheme.highest, 0
    else:
        scale = (high - low) / scheme.highest
        zero = min(max(round(-low / scale), scheme.lowest), scheme.highest)
    total = 0.0
    for count, value in zip(bins.counts.tolist(), bins.centres.tolist(), strict=True):
        if count:
            step = min(max(round(value / scale) + zero, scheme.lowest), scheme.highest)
            total += count * (value - (step - zero) * scale) ** 2
    return total


@schemes
@samples
def test_the_errors_of_many_ranges_are_those_of_a_loop(values, scheme):
    bins = counted(values).bins
    lows, highs = np.linspace(-3, -0.1, 7), np.linspace(0.2, 9, 7)
    errors = squared_errors(bins, lows, highs, scheme)
    expected = [naive_error(bins, low, high, scheme) for low, high in zip(lows, highs, strict=True)]
    np.testing.assert_allclose(errors, expected, rtol=2e-3)


@pytest.mark.parametrize("floor", [SILU, 0.0, -0.557, None])
@samples
def test_uh_takes_the_analytic_lower_bound_or_else_the_observed_minimum(values, floor):
    expected = values.min() if floor is None else floor
    assert RANGE_RULES["uh"](counted(values), floor, Scheme()).low == expected


@schemes
@samples
def test_uh_chooses_the_best_of_all_candidates(values, scheme):
    histogram = counted(values)
    bins = histogram.bins
    chosen = RANGE_RULES["uh"](histogram, SILU, scheme)
    candidates = bins.edges[START_BIN::16]
    best = min(naive_error(bins, SILU, high, scheme) for high in candidates)
    assert chosen.high in bins.edges[START_BIN:]
    assert naive_error(bins, SILU, chosen.high, scheme) <= best * 1.001


@samples
def test_uh_is_best_for_the_values_themselves_too(values):
    chosen = RANGE_RULES["uh"](counted(values), SILU, Scheme())
    candidates = np.linspace(values.max() / 16, values.max(), 300)
    best = min(error_of(values, Range(SILU, high), Scheme()) for high in candidates)
    assert error_of(values, chosen, Scheme()) <= best * 1.02


@pytest.mark.parametrize("rule", ["uh", "mse", "entropy", "percentile"])
def test_a_single_outlier_is_clipped(rule):
    values = np.append(np.abs(normal(1_000_000)), np.float32(100))
    bounds = RANGE_RULES[rule](counted(values), 0.0, Scheme())
    assert values[:-1].max() * 0.5 < bounds.high < 60


def test_uh_keeps_an_outlier_that_many_values_share():
    values = np.concatenate([np.abs(normal(10_000)), np.full(1_000, 100, np.float32)])
    assert RANGE_RULES["uh"](counted(values), 0.0, Scheme()).high == pytest.approx(100, rel=0.01)


@given(FLOATS)
def test_minmax_is_the_extremes(values):
    bounds = RANGE_RULES["minmax"](counted(values), SILU, Scheme())
    assert bounds == Range(values.min(), values.max())


def test_percentile_leaves_out_one_value_in_ten_thousand_on_each_side():
    values = tails(200_000)
    bounds = RANGE_RULES["percentile"](counted(values), None, Scheme())
    bin_width = float(np.ptp(values)) / BINS
    assert bounds.low == pytest.approx(np.quantile(values, 0.0001), abs=2 * bin_width)
    assert bounds.high == pytest.approx(np.quantile(values, 0.9999), abs=2 * bin_width)


@given(FLOATS)
def test_two_sided_mse_is_never_worse_than_minmax(values):
    histogram = counted(values)
    chosen, everything = (
        RANGE_RULES[rule](histogram, None, Scheme()) for rule in ("mse", "minmax")
    )
    ours, theirs = squared_errors(
        histogram.bins,
        np.array([chosen.low, everything.low]),
        np.array([chosen.high, everything.high]),
        Scheme(),
    )
    assert ours <= theirs


def test_two_sided_mse_clips_both_sides():
    values = np.concatenate([normal(1_000_000), [-80, 100]])
    bounds = RANGE_RULES["mse"](counted(values), None, Scheme())
    assert -50 < bounds.low < -3
    assert 3 < bounds.high < 60


def naive_entropy(histogram: Histogram, levels: int) -> float:
    """Migacz's loop over thresholds, in plain Python."""
    bins = histogram.bins
    peak = max(abs(histogram.low), abs(histogram.high))
    counts = [0.0] * BINS
    for count, centre in zip(bins.counts.tolist(), bins.centres.tolist(), strict=True):
        counts[min(int(abs(centre) / peak * BINS), BINS - 1)] += count
    best, threshold = math.inf, 0
    for limit in range(levels, BINS + 1):
        kept, clipped = counts[:limit], sum(counts[limit:])
        p = [*kept[:-1], kept[-1] + clipped]
        mass, members = [0.0] * levels, [0] * levels
        for index, count in enumerate(kept):
            mass[index * levels // limit] += count
            members[index * levels // limit] += count > 0
        q = [
            mass[i * levels // limit] / members[i * levels // limit] if count > 0 else 0.0
            for i, count in enumerate(kept)
        ]
        p_sum, q_sum = sum(p), sum(q) or 1.0
        smallest = float(np.finfo(np.float32).eps)
        lossy = any(a > 0 and b == 0 for a, b in zip(p, q, strict=True))
        divergence = 0.0
        for a, b in zip(p, q, strict=True):
            if a > 0:
                b = max(b / q_sum, smallest) if lossy else b / q_sum
                divergence += a / p_sum * math.log(a / p_sum / b)
        if divergence < best - 1e-12:
            best, threshold = divergence, limit
    return threshold / BINS * peak


@pytest.mark.parametrize("name", ["tails", "silu"])
def test_entropy_chooses_the_threshold_of_the_published_loop(name):
    histogram = counted(SAMPLES[name])
    threshold = naive_entropy(histogram, 128)
    bounds = RANGE_RULES["entropy"](histogram, None, Scheme())
    assert bounds.high == pytest.approx(min(threshold, histogram.high))
    assert bounds.low == pytest.approx(max(-threshold, histogram.low))


@schemes
@pytest.mark.parametrize("floor", [None, 0.0, SILU])
@pytest.mark.parametrize("rule", RANGE_RULES)
@pytest.mark.parametrize("values", CONSTANTS.values(), ids=CONSTANTS)
def test_every_rule_gives_a_finite_scale_to_degenerate_tensors(values, rule, floor, scheme):
    if floor is not None:
        values = np.abs(values)  # a tensor with such a bound has no large negative values
    bounds = RANGE_RULES[rule](counted(values), floor, scheme)
    assert np.isfinite([bounds.low, bounds.high]).all()
    assert 0 < activation_params(bounds, scheme).scale < np.inf


@schemes
@pytest.mark.parametrize("rule", RANGE_RULES)
@settings(max_examples=20)
@given(values=FLOATS)
def test_every_rule_gives_a_range_within_the_observed_values(rule, scheme, values):
    bounds = RANGE_RULES[rule](counted(values), None, scheme)
    assert values.min() <= bounds.low <= values.max()
    assert values.min() <= bounds.high <= values.max()
    assert activation_params(bounds, scheme).scale > 0


@pytest.mark.parametrize("rule", ["uh", "mse"])
def test_mostly_negative_tensors_give_no_numpy_warning(rule):
    values = np.concatenate([np.full(10_000, -50), np.linspace(-100, -40, 50), [10]])
    bounds = RANGE_RULES[rule](counted(values), None, Scheme())
    assert bounds.low <= -50


@pytest.mark.parametrize("power", [-100, -60, 60, 100])
@pytest.mark.parametrize("rule", RANGE_RULES)
def test_ranges_scale_with_the_values(rule, power):
    values, factor = SAMPLES["tails"], 2.0**power
    plain = RANGE_RULES[rule](counted(values), None, Scheme())
    scaled = RANGE_RULES[rule](counted(values * np.float32(factor)), None, Scheme())
    assert scaled.low == pytest.approx(plain.low * factor, rel=2e-3)
    assert scaled.high == pytest.approx(plain.high * factor, rel=2e-3)


def test_at_four_bits_uh_clips_more_than_at_eight():
    histogram = counted(tails(100_000))
    eight, four = (RANGE_RULES["uh"](histogram, None, Scheme(bits=bits)) for bits in (8, 4))
    assert four.high < eight.high
