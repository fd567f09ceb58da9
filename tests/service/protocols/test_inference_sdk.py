"""Roboflow's own SDK, and supervision, against real engines over a socket."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.service.protocols.clients import say


@pytest.fixture(scope="module")
def results(tiny_server, photo):
    return say("inference-sdk", "sdk.py", f"http://127.0.0.1:{tiny_server.port}", photo)


@pytest.fixture(scope="module")
def expected(tiny_server, photo):
    files = {"file": photo.read_bytes()}
    params = {"conf": 0.05, "iou": 0.45, "max_det": 5}
    answer = tiny_server.client.post("/v1/models/int8/detect", files=files, params=params).json()
    assert answer["detections"]
    return answer


def test_the_model_is_found_and_stays(results):
    assert results["info"]["name"] == "qyolo"
    assert results["models"][0] == "yolov5"
    assert {"yolov5/fp32", "yolov5/int8"} <= set(results["models"])
    assert results["loaded"] == results["unloaded"] == results["cleared"] == len(results["models"])


def test_boxes_are_those_of_our_own_route_by_their_centres(results, expected):
    assert results["found"]["image"] == expected["image"]
    for row, box in zip(results["found"]["predictions"], expected["detections"], strict=True):
        left, top, right, bottom = box["box"]
        assert (row["x"], row["y"]) == pytest.approx(((left + right) / 2, (top + bottom) / 2))
        assert (row["width"], row["height"]) == pytest.approx((right - left, bottom - top))
        assert row["confidence"] == box["score"]
        assert (row["class"], row["class_id"]) == (box["class_name"], box["class_id"])


def test_two_images_in_one_request_are_two_answers(results):
    assert len(results["both"]) == 2
    for answer in results["both"]:
        assert answer["image"] == results["found"]["image"]
        assert len(answer["predictions"]) == len(results["found"]["predictions"])


def test_the_sdk_selects_variants_and_classes_and_gets_a_picture(results):
    assert results["fp32"]["predictions"]
    assert {row["class"] for row in results["dogs"]["predictions"]} == {"dog"}
    picture = Image.open(io.BytesIO(base64.b64decode(results["visualization"])))
    assert picture.format == "JPEG"
    assert picture.size == tuple(results["found"]["image"].values())


def test_supervision_reads_the_same_boxes(results, expected):
    rows = expected["detections"]
    seen = results["supervision"]
    np.testing.assert_allclose(seen["xyxy"], [row["box"] for row in rows], atol=0.011)
    np.testing.assert_allclose(seen["confidence"], [row["score"] for row in rows])
    assert seen["class_id"] == [row["class_id"] for row in rows]
    assert seen["class_name"] == [row["class_name"] for row in rows]


def test_the_sdk_can_read_refusals(results):
    status, message = results["refused"]["model"]
    assert status == 404
    assert "there are: yolov5, " in message
    status, message = results["refused"]["agnostic"]
    assert status == 400
    assert "class_agnostic_nms" in message
