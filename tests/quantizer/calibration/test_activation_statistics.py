"""The statistics of a convolution's input, against the output of ONNX Runtime's convolution."""

import numpy as np
import pytest

from quantizer.calibration.activation_statistics import ActivationStatistics, input_statistics
from quantizer.model.graph import Graph
from tests.quantizer.graphs import by_onnxruntime
from tests.tiny_models import Sketch

SIZE = 12  # few enough positions for all to be sampled


def one_conv(weight: np.ndarray, size: int = SIZE, **attributes: object) -> Graph:
    s = Sketch((1, 4, size, size))
    constant = s.constant("w", weight, np.float32)
    return Graph.of(s.model(s.node("Conv", "conv", "images", constant, **attributes), rank=4))


def noise(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.random((1, 4, SIZE, SIZE), np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((1, 1), {}),
        ((3, 3), {"pads": [1, 1, 1, 1]}),
        ((3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ((3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
        ((3, 5), {"pads": [0, 2, 1, 2], "strides": [1, 2]}),
        ((3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
        ((3, 3), {"group": 4}),
    ],
    ids=str,
)
def test_the_statistics_predict_the_mean_and_the_power_of_any_convolution(kernel, attributes):
    groups = attributes.get("group", 1)
    shape = (8, 4 // groups, *kernel)
    weight = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    graph = one_conv(weight, **attributes)
    images = noise(3)
    statistics = input_statistics(graph, ["conv"], images, 1)["conv"]
    made = np.concatenate([by_onnxruntime(graph.model, image) for image in images])
    flat = weight.reshape(groups, 8 // groups, -1).astype(np.float64)
    power = np.einsum("gok,gkl,gol->go", flat, statistics.second, flat).ravel()
    mean = np.einsum("gok,gk->go", flat, statistics.mean).ravel()
    np.testing.assert_allclose(power, np.square(made).mean(axis=(0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(mean, made.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-5)


def test_large_maps_are_sampled_all_over():
    weight = np.zeros((1, 4, 1, 1), np.float32)
    graph = one_conv(weight, 128)
    ramp = np.linspace(0, 1, 4 * 128 * 128, dtype=np.float32).reshape(1, 4, 128, 128)
    found = input_statistics(graph, ["conv"], [ramp] * 4, 1)["conv"]
    np.testing.assert_allclose(found.mean[0], ramp.mean(axis=(0, 2, 3)), rtol=0.02)


def test_the_covariance_is_the_second_moment_less_the_mean():
    statistics = ActivationStatistics(np.array([[1.0, 2.0]]), np.array([[[2.0, 3.0], [3.0, 9.0]]]))
    assert statistics.covariance.tolist() == [[[1.0, 1.0], [1.0, 5.0]]]


def test_without_images_there_are_none():
    assert input_statistics(one_conv(np.zeros((1, 4, 1, 1), np.float32)), ["conv"], [], 1) == {}
