import numpy as np
import pytest

from quantizer.calibration.histogram import histogram_of
from quantizer.compile.builder import Built
from quantizer.compile.operations import Operation
from quantizer.int8 import Range, Scheme, activation_params, dequantize_array, quantize_array
from quantizer.qdq.placement import ActivationSite, KeptFloat, Placement, WeightSite
from quantizer.qdq.quantize import GroupRange
from quantizer.report.execution import ExecutionReport, KindReport
from quantizer.report.layers import Int8Convolutions, LayerReport
from quantizer.report.tensors import TensorReport
from service.manifest import Variant
from tests.quantizer.test_int8 import schemes


def built(precision: str, **executed: str) -> Built:
    return Built(Variant(runtime="openvino", precision=precision, model="model.xml"), executed, 10)


def reported(values: np.ndarray, bounds: Range, scheme: Scheme) -> TensorReport:
    histogram = histogram_of(values, float(values.min()), float(values.max()))
    choice = GroupRange(bounds, None, activation_params(bounds, scheme))
    return TensorReport.of(ActivationSite("t", "t"), histogram, choice, scheme)


VALUES = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)


@schemes
@pytest.mark.parametrize("high", [1.0, 2.0, 3.5, 6.0])
def test_the_ratio_and_the_clipped_share_are_those_of_the_values(scheme, high):
    x, bounds = VALUES, Range(-1.5, high)
    report = reported(x, bounds, scheme)
    params = activation_params(bounds, scheme)
    noise = np.square(x - dequantize_array(quantize_array(x, params), params)).sum()
    assert report.sqnr_db == pytest.approx(10 * np.log10(np.square(x).sum() / noise), abs=0.3)
    outside = ((x < report.low) | (x > report.high)).mean()
    assert report.clipped == pytest.approx(outside, abs=0.005)
    assert 0 <= report.clipped <= 1


def test_the_range_is_that_of_the_grid():
    report = reported(VALUES, Range(-1, 1.55), Scheme())
    assert report.scale == pytest.approx(0.01)
    assert report.zero_point == 100
    assert (report.low, report.high) == pytest.approx((-1, 1.55))
    assert (report.observed_low, report.observed_high) == (VALUES.min(), VALUES.max())


def test_a_range_of_all_values_clips_nothing_and_zeros_have_no_ratio():
    assert reported(VALUES, Range(-6, 6), Scheme()).clipped == 0
    zeros = reported(np.zeros(10, np.float32), Range(0, 0), Scheme())
    assert (zeros.clipped, zeros.sqnr_db) == (0, None)


PLACEMENT = Placement(
    (), (WeightSite("a", "w"), WeightSite("b", "v"), WeightSite("c", "u")), (KeptFloat("d", "why"),)
)


def test_layers_have_the_plan_and_what_the_runtime_executes():
    engines = {"fp32": built("fp32", a="f32", d="f32"), "int8": built("int8", a="u8", d="f32")}
    first, second, _, last = LayerReport.of_all(PLACEMENT, engines)
    assert first == LayerReport("a", "int8", "", (), {"fp32": "f32", "int8": "u8"})
    assert set(second.executed.values()) == {"unknown"}
    assert (last.planned, last.reason) == ("float", "why")


def test_only_planned_convolutions_that_run_in_int8_count():
    engines = {"fp32": built("fp32"), "int8": built("int8", a="u8", b="i8", c="f32", d="u8")}
    layers = LayerReport.of_all(PLACEMENT, engines)
    assert Int8Convolutions.of(layers) == Int8Convolutions(planned=3, executed=2)


OPERATIONS = (
    Operation("conv a", "Convolution", "u8", "jit", 0.5, 2_000_000_000, ("a", "a/act")),
    Operation("conv b", "Convolution", "f32", "jit", 1.0, 1_000_000_000, ("b",)),
    Operation("to u8", "Reorder", "f32", "jit", 0.375, 0, ("",)),
    Operation("cat", "Concatenation", "u8", "ref", 0.0, 0, ("cat",)),
    Operation("to f32", "Reorder", "f32", "jit", 0.125, 0, ("",)),
)


def test_layers_have_the_speed_of_the_int8_engine():
    engines = {"fp32": built("fp32"), "int8": built("int8", a="u8", b="f32")}
    a, b, c, _ = LayerReport.of_all(PLACEMENT, engines, OPERATIONS)
    assert (a.ms, a.gmac_per_s) == (0.5, 4000)
    assert (b.ms, b.gmac_per_s) == (1.0, 1000)
    assert (c.ms, c.gmac_per_s) == (None, None)


def test_the_time_is_counted_by_kind_and_precision():
    execution = ExecutionReport.of(OPERATIONS)
    assert (execution.ms, execution.gmac, execution.gmac_per_s) == (2.0, 3.0, 1500)
    assert execution.outside_convolutions == 0.25
    assert execution.kinds == (
        KindReport("Convolution", "f32", 1, 1.0, 0.5, 1.0),
        KindReport("Convolution", "u8", 1, 0.5, 0.25, 2.0),
        KindReport("Reorder", "f32", 2, 0.5, 0.25, 0.0),
        KindReport("Concatenation", "u8", 1, 0.0, 0.0, 0.0),
    )
    assert ExecutionReport.of(()) is None
