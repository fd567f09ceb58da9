"""NVIDIA's own client against real engines, over a socket."""

import ast

import numpy as np
import pytest

from service.inference.detector import Detector
from service.manifest import read_manifest
from tests.service.protocols.clients import say
from tests.tiny_models import CELLS, CLASSES, SIZE

HEAD = [1, 3 * CELLS, 5 + len(CLASSES)]


@pytest.fixture(scope="module")
def tensor():
    return np.random.default_rng(5).random((1, 3, SIZE, SIZE), np.float32)


@pytest.fixture(scope="module")
def results(tiny_server, photo, tensor, tmp_path_factory):
    file = tmp_path_factory.mktemp("triton") / "tensor.npy"
    np.save(file, tensor)
    return say("tritonclient", "triton.py", f"127.0.0.1:{tiny_server.port}", photo, file)


@pytest.fixture(scope="module")
def expected(tiny_server, photo):
    """The boxes of our own route, by variant."""
    params = {"conf": 0.05, "max_det": 5}
    boxes = {}
    for variant in ("int8", "fp32"):
        files = {"file": photo.read_bytes()}
        path = f"/v1/models/{variant}/detect"
        answer = tiny_server.client.post(path, files=files, params=params)
        boxes[variant] = answer.json()["detections"]
    assert boxes["int8"]
    return boxes


def test_probes_and_descriptions(results):
    """What they contain is in test_routes.py."""
    assert (results["live"], results["ready"], results["model_ready"]) == (
        True,
        True,
        [True, True, False],
    )
    assert results["metadata"]["name"] == "yolov5"
    assert results["metadata"]["outputs"] == [
        {"name": "output.y", "datatype": "FP32", "shape": HEAD}
    ]


def test_the_configuration_is_what_the_ultralytics_client_looks_for(results):
    config = results["config"]
    assert [port["data_type"] for port in config["input"]] == ["TYPE_FP32"]
    assert [port["dims"] for port in config["output"]] == [HEAD]
    exported = ast.literal_eval(config["parameters"]["metadata"]["string_value"])
    assert exported["names"] == dict(enumerate(CLASSES))
    assert (exported["imgsz"], exported["task"]) == ([SIZE, SIZE], "detect")


@pytest.mark.parametrize("way", ["default", "fp32", "json", "gzip", "deflate", "id"])
def test_boxes_are_those_of_our_own_route_in_every_form(results, expected, way):
    found = results["boxes"][way]
    version = "fp32" if way == "fp32" else "int8"
    rows = expected[version]
    assert found["version"] == version
    assert found["id"] == ("seven" if way == "id" else None)
    assert found["labels"] == [row["class_name"] for row in rows]
    assert found["class_ids"] == [row["class_id"] for row in rows]
    np.testing.assert_allclose(found["scores"], [row["score"] for row in rows], atol=1e-4)
    np.testing.assert_allclose(found["boxes"], [row["box"] for row in rows], atol=0.01)


def test_parameters_choose_boxes(results):
    assert set(results["boxes"]["dogs"]["labels"]) == {"dog"}
    for way in ("none", "none_json"):
        assert results["boxes"][way]["labels"] == results["boxes"][way]["boxes"] == []


@pytest.mark.parametrize("way", ["default", "fp32", "json", "gzip"])
def test_a_tensor_gets_the_raw_head_of_its_engine(results, tiny_folder, tensor, way):
    detector = Detector.load(
        tiny_folder, read_manifest(tiny_folder), "fp32" if way == "fp32" else "int8", 1
    )
    np.testing.assert_allclose(
        results["heads"][way], detector.infer_tensor(tensor), rtol=1e-5, atol=1e-5
    )
    detector.close()


@pytest.mark.parametrize(
    ("what", "status", "words"),
    [
        ("model", "404", "there are: yolov5, yolov5-boxes"),
        ("shape", "400", "not FP32 [1, 3, 32, 64]"),
        ("classification", "400", "classification"),
    ],
)
def test_the_client_can_read_refusals(results, what, status, words):
    refused = results["refused"][what]
    assert refused[0] == status
    assert words in refused[1]
