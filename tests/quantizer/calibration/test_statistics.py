from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pytest

from quantizer.calibration.analytic_bounds import lower_bounds
from quantizer.calibration.histogram import Histogram, merge
from quantizer.calibration.images import ImageFiles, find_images
from quantizer.calibration.ranges import RANGE_RULES, squared_errors
from quantizer.calibration.statistics import FAR, SAMPLE, observe
from quantizer.errors import UnsupportedModel
from quantizer.int8 import Scheme
from quantizer.model.execution import open_session
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from quantizer.qdq.placement import plan_placement
from service.vision.input_size import InputSize
from service.vision.preprocess import PREPROCESS
from tests.processes import run_python
from tests.quantizer.calibration.test_histogram import counted
from tests.shared import COCO_CALIB, YOLOV5N, needs_shared
from tests.tiny_models import INPUT, SIZE, Sketch, save_tiny


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return read_float_model(save_tiny(tmp_path_factory.mktemp("model"), "yolov5"), INPUT).graph


@pytest.fixture(scope="module")
def tensors(graph):
    return plan_placement(graph).tensors


def noise(count: int, size: int = SIZE) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.random((1, 3, size, size), np.float32) for _ in range(count)]


def activations(
    graph: Graph, tensors: Sequence[str], images: Iterable[np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Every value of the tensors, for each image."""
    observed = [name for name in tensors if name != graph.input]
    session = open_session(graph.with_outputs(observed), 1)
    for image in images:
        values = session.run(observed, {graph.input: image})
        yield dict(zip(observed, values, strict=True)) | {graph.input: image}


def test_the_histograms_hold_what_the_graph_computes(graph, tensors):
    images = noise(5)
    observed = observe(graph, tensors, images, 1).histograms
    seen = list(activations(graph, tensors, images))
    assert tuple(observed) == tensors
    for name in tensors:
        values = np.concatenate([each[name].ravel() for each in seen])
        histogram = observed[name]
        assert values.size <= 5 * SAMPLE  # small enough to be counted in full
        assert histogram.counts.sum() == values.size
        assert histogram.low == pytest.approx(values.min(), abs=1e-5)
        assert histogram.high == pytest.approx(values.max(), abs=1e-5)
        bins = histogram.bins
        ours = np.cumsum(bins.counts) / values.size
        theirs = np.cumsum(np.histogram(values, bins.edges)[0]) / values.size
        assert np.abs(ours - theirs).max() < 0.02


def test_the_image_itself_is_counted_and_nothing_observed_gives_nothing(graph):
    (histogram,) = observe(graph, ["images"], noise(2), 1).histograms.values()
    assert histogram.counts.sum() == 2 * 3 * SIZE * SIZE
    assert observe(graph, [], noise(1), 1).histograms == {}


@pytest.fixture(scope="module")
def large():
    """A graph whose image has more values than a sample."""
    s = Sketch(image=(1, 3, 512, 512))
    return Graph.of(s.model(s.node("Relu", "act", "images"), rank=4))


def test_a_large_tensor_is_sampled_and_its_extremes_are_not_missed(large):
    image = np.random.default_rng(1).random((1, 3, 512, 512), np.float32)
    image[0, 1, 2, 3], image[0, 2, 3, 5] = -40, 60
    image[0, 0, 100, :50] = 45
    (histogram,) = observe(large, ["images"], [image], 1).histograms.values()
    assert (histogram.low, histogram.high) == (-40, 60)
    # A sample has the weight of the values that are skipped beside it.
    assert histogram.counts.sum() == pytest.approx(image.size, rel=0.001)
    edges = (histogram.first + np.arange(len(histogram.counts))) * 2.0**histogram.exponent
    assert histogram.counts[edges > FAR * 60].sum() == 51  # values far out are all counted
    assert histogram.counts[edges < -FAR * 60].sum() == 1


def test_samples_of_successive_images_start_at_different_places(large):
    ramp = np.linspace(0, 1, 3 * 512 * 512, dtype=np.float32).reshape(1, 3, 512, 512)
    (one,) = observe(large, ["images"], [ramp], 1).histograms.values()
    (many,) = observe(large, ["images"], [ramp] * 30, 1).histograms.values()
    assert many.counts.sum() >= 29 * one.counts.sum()
    assert many.counts.std() / many.counts.mean() < one.counts.std() / one.counts.mean()


def test_a_model_that_computes_nan_is_refused():
    s = Sketch()
    x = s.node("Sqrt", "root", s.plus("negative", s.conv("conv", "images", (3, 4)), -100))
    graph = Graph.of(s.model(x, rank=4))
    with pytest.raises(UnsupportedModel, match=r"root\.y is not finite"):
        observe(graph, ["root.y"], noise(1), 1)


def test_channel_means_are_those_of_all_values(graph, tensors):
    images = noise(3)
    means = observe(graph, [], images, 1, averaged=tensors).channel_means
    seen = list(activations(graph, tensors, images))
    for name in tensors:
        expected = np.concatenate([each[name] for each in seen]).mean(axis=(0, 2, 3))
        np.testing.assert_allclose(means[name], expected, rtol=1e-4, atol=1e-5)


def test_one_pass_also_shows_the_outputs_of_each_image_in_their_order(graph, tensors):
    images, seen = noise(3), []
    watched = observe(graph, tensors, images, 2, watch=lambda *each: seen.append(each))
    assert watched.histograms.keys() == observe(graph, tensors, images, 2).histograms.keys()
    assert [number for number, _, _ in seen] == [0, 1, 2]
    for image, (_, seen_image, outputs) in zip(images, seen, strict=True):
        np.testing.assert_array_equal(seen_image, image)
        (expected,) = activations(graph, graph.outputs, [image])
        for name, output in zip(graph.outputs, outputs, strict=True):
            np.testing.assert_allclose(output, expected[name], rtol=1e-4, atol=1e-5)


@needs_shared
def test_sampling_does_not_move_the_thresholds_of_a_real_model():
    graph = read_float_model(YOLOV5N, InputSize.of(640)).graph
    tensors = plan_placement(graph).tensors
    paths = find_images(COCO_CALIB)[::3]
    images = list(ImageFiles(paths, InputSize.of(640), PREPROCESS["yolo"]).decodable())
    sampled = observe(graph, tensors, images, 2).histograms
    full: dict[str, Histogram] = {}
    for every in activations(graph, tensors, images):
        for name, values in every.items():
            one = counted(values)
            full[name] = merge(full[name], one) if name in full else one
    floors = lower_bounds(graph)
    moved = []
    for name in tensors:
        assert sampled[name].low == full[name].low
        assert sampled[name].high == full[name].high
        ours, theirs = (
            RANGE_RULES["uh"](histogram, floors.get(name), Scheme())
            for histogram in (sampled[name], full[name])
        )
        assert ours.low == theirs.low
        if ours.high != pytest.approx(theirs.high, rel=0.01):
            moved.append(name)
        lows, highs = np.array([ours.low, theirs.low]), np.array([ours.high, theirs.high])
        error, least = squared_errors(full[name].bins, lows, highs, Scheme())
        assert error <= 1.0005 * least, name
    # Where two thresholds are equally good, a few values decide between them.
    assert len(moved) <= 1, moved


PEAK = """
import sys
from itertools import cycle, islice
from pathlib import Path
import numpy as np
from quantizer.model.execution import open_session
from quantizer.model.float_model import read_float_model
from quantizer.calibration.statistics import observe
from quantizer.qdq.placement import plan_placement
from service.vision.input_size import InputSize

graph = read_float_model(Path(sys.argv[1]), InputSize.of(64)).graph
random = np.random.default_rng(0)
images = [random.random((1, 3, 64, 64), np.float32) for _ in range(5)]
tensors = plan_placement(graph).tensors
observe(graph, tensors, islice(cycle(images), int(sys.argv[2])), 1)
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def peak_kib(model, count: int) -> int:
    return int(run_python(PEAK, model, count, timeout=120))


def test_five_hundred_images_take_the_memory_of_fifty(tmp_path, graph, tensors):
    model = save_tiny(tmp_path, "yolov5")
    few, many = peak_kib(model, 50), peak_kib(model, 500)
    kept = 450 * sum(
        values.nbytes for values in next(activations(graph, tensors, noise(1))).values()
    )
    assert kept / 1024 > 0.2 * few  # keeping the activations would exceed the limit below
    assert many < 1.1 * few
