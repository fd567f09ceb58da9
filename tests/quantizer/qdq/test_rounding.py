import numpy as np
import pytest

from quantizer.calibration.activation_statistics import ActivationStatistics
from quantizer.int8 import WeightScheme, dequantize_array, quantize_array, weight_params
from quantizer.qdq.rounding import round_adaptively

BITS = [8, 4]
bits = pytest.mark.parametrize("bits", BITS)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def correlated(groups: int, size: int) -> ActivationStatistics:
    """Of correlated inputs, as neighbouring pixels are."""
    random = np.random.default_rng(1)
    mixed = random.standard_normal((groups, size, size)) + 3 * random.standard_normal(
        (groups, 1, size)
    )
    return ActivationStatistics(np.zeros((groups, size)), mixed.transpose(0, 2, 1) @ mixed / size)


def output_error(weight, steps, params, statistics: ActivationStatistics) -> float:
    """The expected squared error of the output channels, summed."""
    groups, size, _ = statistics.second.shape
    error = (dequantize_array(steps, params) - weight).astype(np.float64).reshape(groups, -1, size)
    return float(np.einsum("gok,gkl,gol->", error, statistics.covariance, error))


@bits
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((16, 8, 3, 3), 1), ((16, 130, 1, 1), 1), ((16, 4, 3, 3), 2), ((12, 1, 5, 5), 12)],
)
def test_the_output_changes_less_than_with_rounding_to_nearest(shape, groups, bits):
    weight = weights(*shape)
    params = weight_params(weight, 0, WeightScheme("minmax", bits))
    statistics = correlated(groups, int(np.prod(shape[1:])))
    adaptive = round_adaptively(weight, params, statistics)
    nearest = quantize_array(weight, params)
    errors = [output_error(weight, steps, params, statistics) for steps in (adaptive, nearest)]
    assert errors[0] < 0.6 * errors[1]
    assert (adaptive.dtype, adaptive.shape) == (np.int8, shape)
    low, high = params.limits
    assert low <= adaptive.min() <= adaptive.max() <= high


def test_with_uncorrelated_inputs_it_is_rounding_to_nearest():
    weight = weights(8, 4, 3, 3)
    params = weight_params(weight, 0)
    statistics = ActivationStatistics(np.zeros((1, 36)), np.diag(np.linspace(1, 2, 36))[None])
    np.testing.assert_array_equal(
        round_adaptively(weight, params, statistics), quantize_array(weight, params)
    )


def test_inputs_and_channels_of_zeros_are_rounded_to_nearest():
    weight = weights(4, 6, 1, 1)
    weight[2] = 0
    params = weight_params(weight, 0)
    silent = correlated(1, 6)
    silent.second[:, 3, :] = silent.second[:, :, 3] = 0
    steps = round_adaptively(weight, params, silent)
    assert (steps[2] == 0).all()
    np.testing.assert_array_equal(steps[:, 3], quantize_array(weight, params)[:, 3])
    nothing = ActivationStatistics(np.zeros((1, 6)), np.zeros((1, 6, 6)))
    np.testing.assert_array_equal(
        round_adaptively(weight, params, nothing), quantize_array(weight, params)
    )
