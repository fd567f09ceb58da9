"""Models that read wide and tall images: every head, and a served folder."""

import json

import httpx
import numpy as np
import onnx
import pytest
import zmq
from PIL import Image

from quantizer.compile.builder import Candidate
from quantizer.compile.load import load_builder
from quantizer.errors import BadOption
from quantizer.evaluation.detectors import describe, graph_detector
from quantizer.model.layout import read_detector
from quantizer.model.map_layout import Maps
from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.detections import Detections
from service.vision.image import MAX_PIXELS, Photo
from service.vision.input_size import InputSize
from service.vision.postprocess import Query
from tests.quantizer.graphs import by_onnxruntime
from tests.qyolo.commands import inline
from tests.service.live import serving_folder
from tests.service.pictures import encoded, gradient
from tests.tiny_models import OWN, TINY, save_tiny

SIZES = [InputSize(96, 64), InputSize(64, 128)]
HEADS = sorted({*TINY, *OWN} - {"relu"})  # relu has no decode of any YOLO


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", HEADS)
def test_the_engine_of_every_head_has_the_boxes_of_the_exporters_graph(name, size, tmp_path):
    path = save_tiny(tmp_path, name, size)
    detector = read_detector(path, size)
    assert isinstance(detector.maps, Maps)
    candidate = Candidate("fp32", detector.model, "f32", detector.preprocess, detector.maps)
    built = load_builder("onnxruntime", 1).build(candidate, tmp_path)
    manifest = describe(path, detector, {"fp32": built.variant}, detector.maps)
    # Bright pixels in 0..255 would make the boxes of random weights infinite.
    brightest = 255 if detector.preprocess.divisor > 1 else 2
    shape = (2 * size.height, 2 * size.width, 3)
    pixels = np.random.default_rng(3).integers(0, brightest, shape, np.uint8)
    query = Query(conf=1e-6, iou=1.0, max_det=10**6, multi_label=name != "end2end")
    served = detected(Detector.load(tmp_path, manifest, "fp32", 1), pixels, query)
    assert len(served) >= 10
    uncut = onnx.load(path) if name in TINY else detector.model
    assert_same(served, detected(graph_detector(uncut, manifest, 1), pixels, query))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", sorted(set(HEADS) - {"end2end", "yolox"}))
def test_an_export_of_one_size_is_resized(name, size, tmp_path):
    """Its boxes are those of an export for the new size, which has the same weights."""
    square, right = save_tiny(tmp_path, name), tmp_path / "right"
    right.mkdir()
    found, expected = (read_detector(path, size) for path in (square, save_tiny(right, name, size)))
    assert found.size == size
    assert found.layout == expected.layout
    assert any("64x64" in text and size.text in text for text in found.assumptions)
    assert not any("64x64" in text for text in expected.assumptions)
    image = np.random.default_rng(5).random((1, 3, size.height, size.width), np.float32)
    outputs = [
        each.head.decode(by_onnxruntime(each.model, image), size, -1.0)
        for each in (found, expected)
    ]
    within = 0.05 if name == "half" else 1e-3
    np.testing.assert_allclose(outputs[0].xyxy, outputs[1].xyxy, rtol=1e-5, atol=within)
    np.testing.assert_allclose(outputs[0].scores, outputs[1].scores, rtol=0, atol=within)


def test_an_end_to_end_export_of_one_size_is_not(tmp_path):
    path = save_tiny(tmp_path, "end2end")
    with pytest.raises(BadOption, match=r"96x64: .* only at the size .* use --size 64$"):
        read_detector(path, InputSize(96, 64))


def detected(detector: Detector, pixels: np.ndarray, query: Query) -> Detections:
    found = detector.detect(Photo.from_pixels(pixels), query)
    detector.close()
    return found


def assert_same(found: Detections, expected: Detections) -> None:
    """As sets: boxes of equal scores may stand in any order."""
    assert len(found) == len(expected)
    a, b = (
        each.take(np.lexsort((*each.xyxy.round(1).T, each.class_ids))) for each in (found, expected)
    )
    np.testing.assert_array_equal(a.class_ids, b.class_ids)
    np.testing.assert_allclose(a.scores, b.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(a.xyxy, b.xyxy, rtol=0, atol=2e-3)


# ------------------------------------------------------------------------------ a served folder

WIDE = InputSize(640, 64)
BODY = encoded(gradient(300, 40), "PNG")


@pytest.fixture(scope="module")
def panoramas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panoramas")
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 320, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def wide(panoramas, tmp_path_factory):
    """What `--size auto` builds of images ten times as wide as high, and what it says."""
    home = tmp_path_factory.mktemp("wide")
    options = ("--size", "auto", "--runtime", "onnxruntime", "--min-sqnr", 0, "--default", "int8")
    out = home / "built"
    model = save_tiny(home, "yolov8", WIDE)
    ran = inline("build", model, "--calibration", panoramas, *options, "--out", out)
    assert ran.code == 0, ran.err
    return out, ran.err


@pytest.fixture(scope="module")
def server(wide, tmp_path_factory):
    endpoint = f"ipc://{tmp_path_factory.mktemp('zmq')}/socket"
    folder, _ = wide
    with serving_folder(folder, zmq=endpoint, conf=0.01) as live:
        yield live.client, endpoint


def test_auto_takes_the_shape_of_the_calibration_images_and_says_so(wide):
    folder, said = wide
    assert "640x64 (chosen from the calibration images)" in said
    report = json.loads((folder / "report.json").read_text())
    described = {name: report["model"][name] for name in ("size", "width", "height")}
    assert described == {"size": 640, "width": 640, "height": 64}
    assert report["options"]["size"] == "auto"
    assert "640&times;64 (chosen from" in (folder / "report.html").read_text()
    assert json.loads((folder / "manifest.json").read_text())["size"] == "640x64"
    assert read_manifest(folder).size == WIDE


def test_the_model_is_described_with_its_width_and_height(server):
    client, _ = server
    described = client.get("/v1/models").json()
    assert {name: described[name] for name in ("size", "width", "height")} == {
        "size": 640,
        "width": 640,
        "height": 64,
    }
    assert 'size="640x64"' in client.get("/metrics").text


def test_http_detects_what_the_engine_does(server, wide):
    client, _ = server
    answer = client.post("/v1/detect", content=BODY, headers={"Content-Type": "image/png"})
    found = engine_boxes(wide, BODY, Query(conf=0.01))
    shown = answer.json()["detections"]
    assert len(shown) == len(found) > 0
    np.testing.assert_allclose([each["box"] for each in shown], found.xyxy, atol=0.006)


def test_the_open_inference_protocol_states_and_takes_rows_and_columns(server, wide):
    client, _ = server
    described = client.get("/v2/models/yolov8").json()["inputs"]
    assert described == [{"name": "images", "datatype": "FP32", "shape": [1, 3, 64, 640]}]
    tensor = np.random.default_rng(0).random((1, 3, 64, 640), np.float32)
    sent = {"name": "images", "datatype": "FP32", "shape": tensor.shape}
    answer = infer(client, sent | {"data": tensor.ravel().tolist()})
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    with_engine = Detector.load(wide[0], read_manifest(wide[0]), "int8", 1)
    expected = with_engine.infer_tensor(tensor)
    with_engine.close()
    assert tuple(output["shape"]) == expected.shape == (1, 7, 80 * 8 + 40 * 4 + 20 * 2)
    np.testing.assert_allclose(np.reshape(output["data"], expected.shape), expected, atol=1e-4)
    refused = infer(client, sent | {"shape": (1, 3, 640, 64), "data": tensor.ravel().tolist()})
    assert refused.status_code == 400


def infer(client: httpx.Client, tensor: dict) -> httpx.Response:
    return client.post("/v2/models/yolov8/infer", json={"inputs": [tensor]})


def test_roboflow_states_both_sides(server):
    client, _ = server
    described = client.get("/model/registry").json()["models"][0]
    assert (described["input_height"], described["input_width"]) == (64, 640)


def test_frigate_sends_frames_of_that_shape(server, wide):
    _, endpoint = server
    frame = np.asarray(gradient(640, 64))[None]
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.rcvtimeo = 60_000
        socket.connect(endpoint)

        def ask(tensor: np.ndarray) -> tuple[dict, np.ndarray]:
            head = {"shape": tensor.shape, "dtype": "uint8", "model_type": "yologeneric"}
            socket.send_multipart([json.dumps(head).encode(), tensor.tobytes()])
            header, rows = socket.recv_multipart()
            return json.loads(header), np.frombuffer(rows, np.float32).reshape(20, 6)

        header, rows = ask(frame)
        assert "error" not in header
        found = engine_boxes(
            wide, encoded(Image.fromarray(frame[0]), "PNG"), Query(conf=0.4, max_det=20)
        )
        assert (rows[:, 1] > 0).sum() == len(found)
        np.testing.assert_allclose(rows[: len(found), 1], found.scores, atol=1e-5)
        header, rows = ask(np.ascontiguousarray(frame.transpose(0, 2, 1, 3)))
        assert "set width to 640 and height to 64" in header["error"]
        assert not rows.any()


def engine_boxes(wide: tuple, body: bytes, query: Query) -> Detections:
    detector = Detector.load(wide[0], read_manifest(wide[0]), "int8", 1)
    found = detector.detect(detector.decode(body, MAX_PIXELS), query)
    detector.close()
    return found
