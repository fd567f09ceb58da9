import numpy as np
import onnx.parser
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantizer.int8 import (
    QuantParams,
    Range,
    Scheme,
    WeightScheme,
    activation_params,
    dequantize_array,
    quantize_array,
    weight_params,
)
from quantizer.model.execution import open_session

SCHEMES = {"asymmetric": Scheme(), "symmetric": Scheme(symmetric=True)}
schemes = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
BOUNDS = st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(-1e3, 1e3, width=32)).map(sorted)
VALUES = arrays(np.float32, 40, elements=st.floats(-2e3, 2e3, width=32))


def round_trip(values: np.ndarray, params: QuantParams) -> np.ndarray:
    return dequantize_array(quantize_array(values, params), params)


def by_onnxruntime(values: np.ndarray, params: QuantParams) -> list[np.ndarray]:
    """The steps and their values as the operators QuantizeLinear and DequantizeLinear say."""
    axis = "" if params.axis is None else f"<axis = {params.axis}>"
    x, scale = (",".join(map(str, each.shape)) for each in (values, params.scale))
    step = params.zero_point.dtype.name
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 13]>
        pair (float[{x}] x, float[{scale}] scale, {step}[{scale}] zero)
            => ({step}[{x}] steps, float[{x}] y)
        {{
            steps = QuantizeLinear {axis} (x, scale, zero)
            y = DequantizeLinear {axis} (steps, scale, zero)
        }}""")
    scales = {"scale": np.asarray(params.scale), "zero": np.asarray(params.zero_point)}
    return open_session(model, 1).run(None, {"x": values} | scales)


@schemes
@given(bounds=BOUNDS, values=VALUES)
def test_inside_the_range_the_error_is_at_most_half_a_step(scheme, bounds, values):
    low, high = bounds
    params = activation_params(Range(low, high), scheme)
    inside = np.clip(values, min(low, 0), max(high, 0))
    error = np.abs(inside - round_trip(inside, params))
    # An asymmetric grid is shifted by up to half a step so that zero falls on it.
    ends = (np.abs(inside) > min(max(-low, 0), max(high, 0))) if not scheme.symmetric else False
    allowed = params.scale * np.where(ends, 1.0, 0.5) + 1e-4 * (1 + np.abs(inside))
    assert (error <= allowed).all()


@schemes
@given(bounds=BOUNDS)
@example(bounds=(0.0, 0.0))
def test_zero_is_exact_and_both_ends_of_the_range_are_represented(scheme, bounds):
    params = activation_params(Range(*bounds), scheme)
    assert params.scale > 0
    assert round_trip(np.zeros(3, np.float32), params).tolist() == [0, 0, 0]
    ends = np.array(bounds, np.float32)
    assert np.abs(round_trip(ends, params) - ends).max() <= params.scale + 1e-3


def test_a_range_without_zero_is_widened_to_contain_it():
    above, below = (activation_params(Range(*ends), Scheme()) for ends in ((2, 5.1), (-5.1, -2)))
    assert (above.scale, above.zero_point) == (np.float32(0.02), 0)
    assert (below.scale, below.zero_point) == (np.float32(0.02), 255)


def test_steps_are_uint8_or_symmetric_int8():
    bounds = Range(-1.0, 3.0)
    plain, symmetric = (activation_params(bounds, scheme) for scheme in SCHEMES.values())
    assert (plain.zero_point.dtype, int(plain.zero_point)) == (np.uint8, 64)
    assert (symmetric.zero_point.dtype, int(symmetric.zero_point)) == (np.int8, 0)
    assert symmetric.scale == np.float32(3 / 127)


@pytest.mark.parametrize(
    ("scheme", "ends"),
    [
        (Scheme(), (0, 255)),
        (Scheme(symmetric=True), (-128, 127)),
        (Scheme(bits=4), (0, 15)),
        (Scheme(symmetric=True, bits=4), (-8, 7)),
    ],
)
def test_a_scheme_knows_its_lowest_and_highest_step(scheme, ends):
    assert (scheme.lowest, scheme.highest) == ends


def test_values_outside_are_clipped_to_the_ends():
    params = activation_params(Range(0, 25.5), Scheme())
    steps = quantize_array(np.array([-9, 0, 25.5, 99], np.float32), params)
    assert steps.tolist() == [0, 0, 255, 255]


def test_ties_go_to_the_even_step():
    params = QuantParams(np.float32(1), np.uint8(10))
    steps = quantize_array(np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), params)
    assert steps.tolist() == [10, 12, 12, 10, 8]


def test_weights_have_a_scale_for_each_channel_and_none_is_clipped():
    weight = np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype(np.float32)
    weight *= np.array([1, 10, 100, 1000], np.float32)[:, None, None, None]
    params = weight_params(weight, axis=0)
    np.testing.assert_allclose(params.scale, np.abs(weight).max(axis=(1, 2, 3)) / 127)
    assert (params.zero_point.dtype, params.zero_point.tolist()) == (np.int8, [0] * 4)
    steps = quantize_array(weight, params)
    assert np.abs(steps.astype(int)).max(axis=(1, 2, 3)).tolist() == [127] * 4
    error = np.abs(weight - dequantize_array(steps, params)).max(axis=(1, 2, 3))
    assert (error <= params.scale * 0.5001).all()


def test_weights_are_quantized_along_the_given_axis():
    weight = np.array([[1, 100], [2, 200]], np.float32)
    params = weight_params(weight, axis=1)
    assert params.scale.tolist() == pytest.approx([2 / 127, 200 / 127])
    np.testing.assert_allclose(round_trip(weight, params), weight, rtol=0.01)


def test_a_channel_of_zeros_stays_zero():
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[1] = 0.5
    params = weight_params(weight, axis=0)
    assert np.isfinite(params.scale).all()
    assert (round_trip(weight, params)[0] == 0).all()


@schemes
@pytest.mark.parametrize("bounds", [(-0.2785, 6.3), (0, 1), (-3, -1), (-1e-3, 1e3)])
def test_activations_are_quantized_as_the_onnx_operators_do_bit_for_bit(scheme, bounds):
    params = activation_params(Range(*bounds), scheme)
    values = np.random.default_rng(0).standard_normal(20_000).astype(np.float32) * bounds[1]
    ties = (np.arange(-300, 300) + np.float32(0.5)) * params.scale
    values = np.concatenate([values, ties.astype(np.float32)])
    assert_as_the_operators(values, params)


def test_weights_are_quantized_as_the_onnx_operators_do_bit_for_bit():
    weight = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    assert_as_the_operators(weight, weight_params(weight, axis=0))


def assert_as_the_operators(values: np.ndarray, params: QuantParams) -> None:
    steps, real = by_onnxruntime(values, params)
    np.testing.assert_array_equal(quantize_array(values, params), steps)
    np.testing.assert_array_equal(dequantize_array(steps, params), real)


@given(st.floats(1e-9, 1e5), st.booleans())
def test_half_scales_are_float16_numbers_that_hold_the_whole_range(high, symmetric):
    params = activation_params(Range(-0.2785, high), Scheme(symmetric, half=True))
    scale = float(params.scale)
    assert np.float32(np.float16(scale)) == np.float32(scale)
    plain = float(activation_params(Range(-0.2785, high), Scheme(symmetric)).scale)
    assert plain * (1 - 1e-6) <= scale <= max(plain * (1 + 2**-10), 6e-8)


def test_half_scales_of_weights_clip_no_channel():
    weight = np.random.default_rng(3).standard_normal((16, 4, 3, 3)).astype(np.float32)
    weight *= np.logspace(-6, 3, 16, dtype=np.float32).reshape(16, 1, 1, 1)
    params = weight_params(weight, 0, WeightScheme(half=True))
    np.testing.assert_array_equal(params.scale.astype(np.float16).astype(np.float32), params.scale)
    error = np.abs(dequantize_array(quantize_array(weight, params), params) - weight)
    assert (error <= params.scale.reshape(16, 1, 1, 1) * 0.5001).all()
