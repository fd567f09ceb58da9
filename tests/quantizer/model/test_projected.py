"""A graph whose last convolutions the server computes has the boxes of the whole graph."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import openvino as ov
import pytest

from quantizer.int8 import Scheme
from quantizer.model.execution import open_session
from quantizer.model.graph import Graph
from quantizer.model.layout import read_detector
from quantizer.model.map_layout import Maps
from quantizer.model.projected import ended_before, kept_shares, projected_layout
from quantizer.model.serving_graph import ended_at
from service.vision.heads import Candidates
from service.vision.image import decode_image
from service.vision.input_size import InputSize
from service.vision.maps import MapDecoder
from service.vision.preprocess import preprocess, tensor_of
from service.vision.projections import read_projections, write_projections
from tests.quantizer.graphs import graph_of, images, maps_of, quantized
from tests.shared import COCO_VAL, SHARED, needs_shared
from tests.tiny_models import INPUT

Runtime = Callable[[onnx.ModelProto, np.ndarray], Sequence[np.ndarray]]
MAX_PIXELS = 10**7
CONF = 0.05


def by_onnxruntime(model: onnx.ModelProto, image: np.ndarray) -> Sequence[np.ndarray]:
    session = open_session(model, 1)
    return session.run(None, {session.get_inputs()[0].name: image})


def by_openvino(model: onnx.ModelProto, image: np.ndarray) -> Sequence[np.ndarray]:
    core = ov.Core()
    network = core.read_model(model.SerializeToString())
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(each) for each in compiled(image).to_tuple()]


RUNTIMES = pytest.mark.parametrize("run", [by_onnxruntime, by_openvino])
families = pytest.mark.parametrize("name", ["yolov5", "yolox", "yolov8", "end2end"])


def model_of(name: str, kind: str) -> onnx.ModelProto:
    return graph_of(name).model if kind == "float" else quantized(graph_of(name), Scheme())


def assert_same(ours: Candidates, expected: Candidates) -> None:
    assert len(ours.scores) == len(expected.scores) > 0
    np.testing.assert_allclose(ours.scores, expected.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.xyxy, expected.xyxy, rtol=1e-6, atol=1e-3)


@RUNTIMES
@families
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_the_candidates_are_those_of_the_maps(run, name, kind):
    maps, model = maps_of(name), model_of(name, kind)
    ended = ended_before(model, maps)
    decoder = MapDecoder(projected_layout(graph_of(name), maps), INPUT, ended.projections)
    (image,) = images(1)
    expected = MapDecoder(maps.layout, INPUT).decode(run(ended_at(model, maps), image), CONF)
    assert_same(decoder.decode(run(ended.model, image), CONF), expected)
    onnx.checker.check_model(ended.model, full_check=True)


def test_a_quantized_graph_returns_bytes():
    ended = ended_before(model_of("yolov5", "int8"), maps_of("yolov5"))
    outputs = by_onnxruntime(ended.model, *images(1))
    assert {each.dtype for each in outputs} == {np.dtype(np.float32), np.dtype(np.uint8)}


def test_what_tells_whether_an_anchor_can_pass_stays_in_the_graph():
    for level in projected_layout(graph_of("yolov5"), maps_of("yolov5")).levels:
        assert level.objectness is not None
        assert not level.objectness.projected
        assert not level.box.projected
        assert level.classes.projected


@pytest.mark.parametrize("name", ["yolox", "yolov8", "end2end"])
def test_heads_with_one_anchor_in_a_cell_keep_their_convolutions(name):
    maps = maps_of(name)
    assert projected_layout(graph_of(name), maps) == maps.layout
    assert not ended_before(graph_of(name).model, maps).projections


def test_features_that_are_larger_than_the_classes_are_not_returned():
    maps, wide = maps_of("yolov5"), onnx.ModelProto()
    wide.CopyFrom(graph_of("yolov5").model)
    features = 4 * len(maps.layout.levels[0].anchors) * maps.layout.class_count + 1
    for tensor in maps.tensors:
        node = next(each for each in wide.graph.node if tensor in each.output)
        weight = next(each for each in wide.graph.initializer if each.name == node.input[1])
        values = np.zeros((weight.dims[0], features, 1, 1), np.float32)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    assert projected_layout(Graph.of(wide), maps) == maps.layout


def test_the_share_of_a_convolution_that_stays():
    maps = maps_of("yolov5")
    shares = kept_shares(graph_of("yolov5"), maps)
    assert len(shares) == len(maps.layout.levels)
    assert set(shares.values()) == {5 / (5 + maps.layout.class_count)}


def test_the_file_of_a_variant_holds_them(tmp_path):
    projections = ended_before(graph_of("yolov5").model, maps_of("yolov5")).projections
    write_projections(tmp_path / "file.npz", projections)
    found = read_projections(tmp_path / "file.npz")
    assert found.keys() == projections.keys()
    for index, each in projections.items():
        np.testing.assert_array_equal(found[index].weight, each.weight)
        np.testing.assert_array_equal(found[index].bias, each.bias)


@needs_shared
@pytest.mark.parametrize("name", ["yolov5n", "yolox_nano", "yolov8n", "yolov10n"])
def test_real_models_have_the_same_boxes_before_nms(name):
    if not (path := SHARED / "models" / f"{name}.onnx").exists():
        pytest.skip(f"{path} is not there")
    size = InputSize.of(640)
    detector = read_detector(path, size)
    assert isinstance(detector.maps, Maps)
    ended = ended_before(detector.model, detector.maps)
    assert bool(ended.projections) == (name == "yolov5n")
    layout = projected_layout(detector.graph, detector.maps)
    decoders = MapDecoder(layout, size, ended.projections), MapDecoder(detector.maps.layout, size)
    sessions = [
        open_session(model, 2) for model in (ended.model, ended_at(detector.model, detector.maps))
    ]
    how = detector.preprocess
    for image in sorted(COCO_VAL.iterdir())[:3]:
        photo = decode_image(image.read_bytes(), MAX_PIXELS, size)
        tensor = tensor_of(preprocess(photo, size, how.padding).canvas, how)
        ours, expected = (
            decoder.decode(session.run(None, {detector.graph.input: tensor}), 0.001)
            for decoder, session in zip(decoders, sessions, strict=True)
        )
        assert_same(ours, expected)
