"""What OpenVINO executes for an image, and how its running means become times."""

import numpy as np
import pytest

from quantizer.compile.builder import Candidate
from quantizer.compile.load import load_builder
from quantizer.compile.openvino_operations import median_of_means
from quantizer.int8 import Scheme
from tests.quantizer.graphs import graph_of, quantized
from tests.tiny_models import SIZE, Sketch


def executed(model, folder, variant="fp32"):
    """The operations of the engine that is served for a graph."""
    builder = load_builder("openvino", 1)
    built = builder.build(Candidate(variant, model), folder)
    return builder.operations(built.variant, folder)


def test_a_convolution_has_the_multiplications_of_its_weights(tmp_path):
    s = Sketch()
    x = s.conv("stem", "images", (3, 16), kernel=3, stride=2)
    x = s.conv("depthwise", x, (16, 16), kernel=3, groups=16)
    operations = executed(s.model(s.conv_silu("last", x, (16, 8)), rank=4), tmp_path)
    macs = {layer: each.macs for each in operations if each.convolves for layer in each.layers}
    pixels = (SIZE // 2) ** 2
    assert macs["stem"] == pixels * 16 * 3 * 9
    assert macs["depthwise"] == pixels * 16 * 9
    assert macs["last"] == pixels * 8 * 16
    assert all(each.macs == 0 for each in operations if not each.convolves)


def test_the_served_int8_engine_lists_what_it_executes(tmp_path):
    operations = executed(quantized(graph_of("yolov5"), Scheme()), tmp_path, "int8")
    assert {each.precision for each in operations if each.convolves} <= {"u8", "f32", "bf16", "f16"}
    assert all(each.ms >= 0 for each in operations)
    assert sum(each.ms for each in operations) > 0
    # The image is bytes with the channels last: renaming its axes moves nothing.
    assert not any(each.name.endswith("_fake") for each in operations)
    assert not {each.kind for each in operations} & {"Const", "Input", "Output"}


def test_onnxruntime_reports_no_times(tmp_path):
    builder = load_builder("onnxruntime", 1)
    built = builder.build(Candidate("fp32", graph_of("relu").model), tmp_path)
    assert builder.operations(built.variant, tmp_path) == ()


def test_a_slow_first_inference_and_a_slow_round_do_not_count():
    rounds = np.array([90.0, 5, 5, 60, 5, 6])
    means = np.cumsum(rounds) / np.arange(1, 7)
    assert median_of_means(means) == pytest.approx(5, abs=1e-3)
    assert median_of_means([4.0, 3.0]) == pytest.approx(2)
