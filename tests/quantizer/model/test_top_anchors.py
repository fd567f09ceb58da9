import numpy as np
import onnx
import pytest
from onnx import version_converter

from quantizer.model.execution import open_session
from quantizer.model.serving_graph import ended_at
from quantizer.model.top_anchors import ended_at_top, top_layout
from service.vision.detections import Detections
from service.vision.heads import detections_of
from service.vision.maps import MapDecoder, MapLayout
from tests.quantizer.graphs import graph_of, images, maps_of
from tests.tiny_models import INPUT

FAMILIES = ("yolov5", "yolox", "yolov8", "end2end")


def detected(
    model: onnx.ModelProto, layout: MapLayout, image: np.ndarray, conf: float
) -> Detections:
    outputs = open_session(model, 1).run(None, {"images": image})
    candidates = MapDecoder(layout, INPUT).decode(outputs, conf)
    return detections_of(candidates, conf, multi_label=False)


@pytest.mark.parametrize("conf", [0.01, 0.25])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_best_anchors_give_the_boxes_of_the_maps(name, conf):
    maps, model = maps_of(name), graph_of(name).model
    ended = ended_at_top(model, maps)
    onnx.checker.check_model(ended, full_check=True)
    (image,) = images(1)
    ours = detected(ended, top_layout(maps.layout), image, conf)
    expected = detected(ended_at(model, maps), maps.layout, image, conf)
    assert len(expected)
    assert len(ours) == len(expected)
    np.testing.assert_allclose(ours.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(
        np.sort(ours.xyxy, axis=0), np.sort(expected.xyxy, axis=0), rtol=1e-4
    )


def test_a_graph_in_a_newer_opset_ends_at_the_same_anchors():
    maps, model = maps_of("yolov8"), graph_of("yolov8").model
    newer = ended_at_top(version_converter.convert_version(model, 19), maps)
    onnx.checker.check_model(newer, full_check=True)
    (image,) = images(1)
    for ours, expected in zip(
        open_session(newer, 1).run(None, {"images": image}),
        open_session(ended_at_top(model, maps), 1).run(None, {"images": image}),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_of_more_anchors_those_with_the_highest_scores_are_returned(name):
    maps, model = maps_of(name), graph_of(name).model
    (image,) = images(1)
    few = open_session(ended_at_top(model, maps, count=7), 1).run(None, {"images": image})
    every = open_session(ended_at_top(model, maps), 1).run(None, {"images": image})
    assert {each.shape[1] for each in few} == {7}
    np.testing.assert_array_equal(few[0], every[0][:, :7])
    for some, all_of_them in zip(few[1:], every[1:], strict=True):
        np.testing.assert_allclose(some, all_of_them[:, :7], rtol=1e-5, atol=1e-5)
    scores = few[3] if len(few) == 4 else few[2].max(axis=2, keepdims=True)
    assert (np.diff(scores.ravel()) <= 1e-6).all()
