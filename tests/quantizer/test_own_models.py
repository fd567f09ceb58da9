"""Models in the forms that exporters of one's own choose: from the file to boxes.

The boxes of fp32 are those that ONNX Runtime and a plain decode of the file's outputs give.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from quantizer.build import build
from quantizer.config import BuildConfig
from quantizer.model.layout import read_detector
from quantizer.model.map_layout import Maps
from quantizer.report.data import Report
from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.detections import Detections
from service.vision.image import Photo
from service.vision.postprocess import Query
from tests.quantizer.graphs import by_onnxruntime
from tests.tiny_models import CLASSES, INPUT, OWN, SIZE, C, save_tiny, yolov8

Boxes = tuple[np.ndarray, np.ndarray]  # corners [N,4], scores [N,C]


def from_centres(rows: np.ndarray, first_class: int = 4) -> Boxes:
    centre, extent = rows[:, :2], rows[:, 2:4]
    return np.hstack([centre - extent / 2, centre + extent / 2]), rows[:, first_class:]


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


# How a person would read the outputs of the file.
DECODED: Final[dict[str, Callable[..., Boxes]]] = {
    "yolov6": lambda output: from_centres(output[0], 5),
    "yolonas": lambda boxes, scores: (boxes[0], scores[0]),
    "logits": lambda output: from_centres(np.vstack([output[0, :4], sigmoid(output[0, 4:])]).T),
    "transposed": lambda output: from_centres(output[0]),
    "fractions": lambda output: from_centres(output[0].T * ([SIZE] * 4 + [1] * C)),
    "channels_last": lambda output: from_centres(output[0].T),
    "half": lambda output: from_centres(output[0].T),
}


def outputs_of(path: Path, name: str, image: np.ndarray) -> Iterator[np.ndarray]:
    """The file's own outputs for an image f32[1,3,H,W]."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    image = image.transpose(0, 2, 3, 1) if name == "channels_last" else image
    image = image.astype(np.float16) if source.type == "tensor(float16)" else image
    return (each.astype(np.float32) for each in session.run(None, {source.name: image}))


def noise() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["yolov6", "yolonas", "logits"])
def test_the_model_is_built_and_detects_what_a_plain_decode_of_the_file_does(
    name, photos, tmp_path
):
    path, folder = save_tiny(tmp_path, name), tmp_path / "built"
    folder.mkdir()
    report = built(path, photos, folder)
    manifest = read_manifest(folder)
    assert manifest.maps is not None  # the served graph ends at its maps
    assert manifest.class_names == CLASSES
    pixels = noise()
    tensor = (pixels.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    boxes, scores = DECODED[name](*outputs_of(path, name, tensor))
    detector = Detector.load(folder, manifest, "fp32", 1)
    # No box overlaps another by more than all of it, so that NMS keeps every box.
    query = Query(conf=0.0, iou=1.0, max_det=len(boxes))
    found = detector.detect(Photo.from_pixels(pixels), query)
    detector.close()
    assert_same(found, boxes, scores, 1e-2)
    logits_are_reported = any("logits" in text for text in report.warnings)
    assert logits_are_reported is (name == "logits")


@pytest.mark.parametrize("name", OWN)
def test_its_maps_are_recognised_and_its_head_reads_the_whole_output(name, tmp_path):
    path = save_tiny(tmp_path, name)
    detector = read_detector(path, INPUT)
    assert isinstance(detector.maps, Maps)
    image = np.random.default_rng(4).random((1, 3, SIZE, SIZE), np.float32)
    boxes, scores = DECODED[name](*outputs_of(path, name, image))
    found = detector.head.decode(by_onnxruntime(detector.model, image), INPUT, -1.0)
    within = 0.05 if name == "half" else 1e-3
    np.testing.assert_allclose(found.xyxy, boxes, rtol=0, atol=within * SIZE)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=within)


@pytest.mark.parametrize("opset", [13, 16, 18, 21])
def test_opsets_are_read(opset, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(yolov8(opset=opset), path)
    detector = read_detector(path, INPUT)
    assert detector.layout.head == "yolov8"
    assert isinstance(detector.maps, Maps)


@pytest.mark.parametrize("image", [("batch", 3, SIZE, SIZE), ("batch", 3, "height", "width")])
def test_a_dynamic_batch_and_a_dynamic_size_are_read(image, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(yolov8(image=image), path)
    assert read_detector(path, INPUT).output_shape == (1, 4 + C, 84)


def built(path: Path, photos: Path, folder: Path) -> Report:
    config = BuildConfig(path, photos, size=SIZE, threads=1, runtime="openvino", min_sqnr=0.0)
    return build(config, folder, lambda _: None)


def assert_same(found: Detections, boxes: np.ndarray, scores: np.ndarray, within: float) -> None:
    """Each found box is one of these, clipped to the image, with its best class."""
    assert len(found) == len(boxes)
    clipped = np.clip(boxes, 0, SIZE)
    for box, score, label in zip(found.xyxy, found.scores, found.class_ids, strict=True):
        distance = np.abs(clipped - box).max(axis=1) + SIZE * np.abs(scores[:, label] - score)
        assert distance.min() < within * SIZE
    np.testing.assert_allclose(found.scores, np.sort(scores.max(axis=1))[::-1], atol=within)
