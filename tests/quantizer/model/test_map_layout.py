"""The layouts of tiny and of real models, against their decode tails."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import shape_inference

from quantizer.model.execution import open_session
from quantizer.model.graph import Graph
from quantizer.model.layout import read_detector
from quantizer.model.map_layout import Maps, Unrecognised, recognise_maps
from quantizer.model.serving_graph import ended_at
from service.vision.detections import Detections
from service.vision.heads import HEADS, detections_of
from service.vision.image import MAX_PIXELS, decode_image
from service.vision.input_size import InputSize
from service.vision.postprocess import Decoder
from service.vision.preprocess import preprocess, tensor_of
from tests.quantizer.graphs import by_onnxruntime, graph_of, images
from tests.shared import COCO_VAL, SHARED, needs_shared
from tests.tiny_models import CLASSES, INPUT, STRIDES, Sketch, yolov8

CODES = {
    "yolov5": "anchors",
    "yolox": "exponential",
    "yolov8": "distances",
    "end2end": "distances",
}


@pytest.mark.parametrize("name", CODES)
def test_the_layout_of_each_family_is_recognised(name):
    maps = recognise_maps(graph_of(name), name, INPUT)
    assert isinstance(maps, Maps)
    layout = maps.layout
    assert (layout.code, layout.class_count) == (CODES[name], len(CLASSES))
    assert tuple(level.stride for level in layout.levels) == STRIDES
    assert (layout.limit, layout.one_class) == ((10, True) if name == "end2end" else (None, False))
    assert layout.bins == (tuple(range(16)) if CODES[name] == "distances" else ())


def test_the_anchors_are_read_from_the_tail():
    layout = recognise_maps(graph_of("yolov5"), "yolov5", INPUT).layout
    for level in layout.levels:
        expected = level.stride * np.array([[1, 2], [2, 2], [2, 1]])
        np.testing.assert_allclose(level.anchors, expected, rtol=1e-6)


@pytest.mark.parametrize("conf", [-1.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("name", CODES)
def test_the_maps_give_the_boxes_of_the_whole_graph(name, conf):
    graph = graph_of(name)
    maps = recognise_maps(graph, name, INPUT)
    ended = ended_at(graph.model, maps)
    onnx.checker.check_model(ended)
    for image in images(2):
        outputs = open_session(ended, 1).run(None, {"images": image})
        expected = before_nms([by_onnxruntime(graph.model, image)], name, None, conf)
        assert_equal(before_nms(outputs, name, maps, conf), expected)


def test_a_tail_that_decodes_in_another_way_is_not_recognised():
    model = yolov8()
    (pixels,) = (each for each in model.graph.initializer if each.name == "dfl.pixels.factor")
    scaled = onnx.numpy_helper.to_array(pixels) * np.float32(1.001)
    pixels.CopyFrom(onnx.numpy_helper.from_array(scaled, pixels.name))
    graph = graph_from(model)
    found = recognise_maps(graph, "yolov8", INPUT)
    assert isinstance(found, Unrecognised)
    assert "64 at 8x8" in found.reason


def test_a_tail_that_reads_other_tensors_is_not_recognised():
    s = Sketch()
    x = s.conv_silu("a", "images", (3, 8), 3, 8)
    gate = s.node("GlobalAveragePool", "pool", "images")
    gate = s.node("ReduceMax", "gate", gate, axes=[1], keepdims=1)
    made = s.node("Mul", "gated", s.conv("last", x, (8, 8)), gate)
    graph = graph_from(s.model(s.reshape("flat", made, [1, 8, -1])))
    found = recognise_maps(graph, "yolov8", INPUT)
    assert isinstance(found, Unrecognised)
    assert "also reads" in found.reason


@needs_shared
@pytest.mark.parametrize("name", ["yolov5n", "yolox_nano", "yolov8n", "yolov10n"])
def test_real_models_have_the_same_boxes_before_nms(name):
    if not (path := SHARED / "models" / f"{name}.onnx").exists():
        pytest.skip(f"{path} is not there")
    detector = read_detector(path, InputSize.of(640))
    head, how = detector.layout.head, detector.preprocess
    maps = recognise_maps(detector.graph, head, InputSize.of(640))
    assert isinstance(maps, Maps)
    whole, ended = (open_session(m, 2) for m in (detector.model, ended_at(detector.model, maps)))
    for image in sorted(COCO_VAL.iterdir())[:3]:
        photo = decode_image(image.read_bytes(), MAX_PIXELS, InputSize.of(640))
        tensor = {
            detector.graph.input: tensor_of(
                preprocess(photo, InputSize.of(640), how.padding).canvas, how
            )
        }
        expected = before_nms(whole.run(None, tensor), head, None, 0.001, InputSize.of(640))
        assert len(expected) > 10
        assert_equal(
            before_nms(ended.run(None, tensor), head, maps, 0.001, InputSize.of(640)), expected
        )


def graph_from(model: onnx.ModelProto) -> Graph:
    return Graph.of(shape_inference.infer_shapes(model, strict_mode=True, data_prop=True))


def before_nms(
    outputs: Sequence[np.ndarray],
    head: str,
    maps: Maps | None,
    conf: float,
    size: InputSize = INPUT,
) -> Detections:
    """Every class of every box, best first."""
    decoder = Decoder.of(HEADS[head], size, maps.layout if maps else None)
    one_class = maps is not None and maps.layout.one_class
    candidates = decoder.decode(outputs, conf)
    found = detections_of(candidates, max(conf, 0.0), multi_label=not one_class)
    return found.take(np.arange(min(len(found), decoder.limit or len(found))))


def assert_equal(found: Detections, expected: Detections) -> None:
    """As sets: boxes of equal scores may stand in any order."""
    assert len(found) == len(expected)
    ours, theirs = in_order(found), in_order(expected)
    np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.xyxy, theirs.xyxy, rtol=0, atol=1e-3)


def in_order(found: Detections) -> Detections:
    columns = (*found.xyxy.round(1).T[::-1], found.class_ids)
    return found.take(np.lexsort(columns))
