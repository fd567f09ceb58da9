"""Roboflow's routes over a socket: the SDK's requests, and invalid ones."""

import base64
import io

import httpx
import pytest
from PIL import Image

from tests.service.live import serving
from tests.service.pictures import jpeg

PATH = "/infer/object_detection"
KEY = "0123456789abcdef"


def picture(data: bytes | None = None, **changes: object) -> dict:
    value = base64.b64encode(data or jpeg()).decode()
    return {"type": "base64", "value": value} | changes


def ask(client: httpx.Client, **changes: object) -> httpx.Response:
    return client.post(PATH, json={"model_id": "tiny/fp32", "image": picture()} | changes)


def assert_error(answer: httpx.Response, status: int, words: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()
    assert list(error) == ["message"]
    assert words in error["message"]


def test_boxes_are_given_by_their_centre_in_source_pixels(client):
    answer = ask(client)
    assert answer.status_code == 200
    assert answer.headers["x-qyolo-variant"] == "fp32"
    content = answer.json()
    assert content["image"] == {"width": 200, "height": 100}
    assert content["time"] > 0
    assert "visualization" not in content
    person, dog = content["predictions"]
    assert person.pop("detection_id") != dog.pop("detection_id")
    assert person == {
        "x": 100.0,
        "y": 50.0,
        "width": 50.0,
        "height": 25.0,
        "confidence": 0.9,
        "class": "person",
        "class_id": 0,
    }
    assert (dog["x"], dog["y"], dog["class"]) == (37.5, 25.0, "dog")


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ({}, ["person", "dog"]),
        ({"confidence": "best", "source": "inference-sdk"}, ["person", "dog"]),
        ({"confidence": 0.05}, ["person", "dog", "traffic light"]),
        ({"confidence": 0.7, "iou_threshold": 1}, ["person", "person"]),
        ({"max_detections": 1}, ["person"]),
        ({"class_filter": ["dog"]}, ["dog"]),
        ({"api_key": None, "class_agnostic_nms": False}, ["person", "dog"]),
    ],
)
def test_options_select_boxes(client, options, classes):
    assert [row["class"] for row in ask(client, **options).json()["predictions"]] == classes


def test_a_list_of_images_is_answered_by_a_list(client):
    (one,) = ask(client, image=[picture()]).json()
    two = ask(client, image=[picture(), picture(jpeg(100, 100))]).json()
    assert [answer["image"]["width"] for answer in (one, *two)] == [200, 200, 100]


def test_a_picture_with_boxes_comes_on_request(client):
    content = ask(client, visualize_predictions=True).json()
    drawn = Image.open(io.BytesIO(base64.b64decode(content["visualization"])))
    assert (drawn.format, drawn.size) == ("JPEG", (200, 100))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_registry_lists_the_model_and_its_variants(client, method):
    models = client.request(method, "/model/registry", params={"api_key": "None"}).json()["models"]
    assert [model["model_id"] for model in models] == ["tiny", "tiny/fp32", "tiny/int8"]
    assert {key: models[0][key] for key in ("task_type", "batch_size", "input_height")} == {
        "task_type": "object-detection",
        "batch_size": 1,
        "input_height": 64,
    }


def test_adding_and_removing_models_changes_nothing(client):
    registry = client.get("/model/registry").json()
    for path in ("/model/add", "/model/remove"):
        assert client.post(path, json={"model_id": "tiny", "api_key": None}).json() == registry
        assert_error(client.post(path, json={"model_id": "coco/3"}), 404, "there are: tiny, ")
        assert_error(client.post(path, json={}), 400, "model_id")
    assert client.post("/model/clear").json() == registry
    assert client.get("/info").json()["name"] == "qyolo"


BAD = {
    "an address": ({"image": {"type": "url", "value": "http://localhost/"}}, "'url'"),
    "a pickle": ({"image": {"type": "numpy", "value": "gASVAAAA"}}, "'numpy'"),
    "a string": ({"image": "abcd"}, "image"),
    "no image": ({"image": picture(b"hello")}, "not a JPEG"),
    "one bad of two": ({"image": [picture(), {"type": "url"}]}, "image"),
    "no images": ({"image": []}, "1 to 16"),
    "17 images": ({"image": [picture(value="")] * 17}, "1 to 16 images, not 17"),
    "a confidence": ({"confidence": 1.5}, "confidence"),
    "an unknown confidence": ({"confidence": "worst"}, "confidence"),
    "an overlap": ({"iou_threshold": 0}, "iou_threshold"),
    "a count": ({"max_detections": 0}, "max_detections"),
    "a class": ({"class_filter": ["cat"]}, "no class 'cat'"),
    "class-agnostic NMS": ({"class_agnostic_nms": True}, "class_agnostic_nms"),
}


@pytest.mark.parametrize(("changes", "words"), BAD.values(), ids=BAD)
def test_a_bad_request_is_400_with_a_message(client, changes, words):
    assert_error(ask(client, **changes), 400, words)


def test_invalid_bodies_models_and_paths_are_refused(client):
    assert_error(client.post(PATH, content=b"{"), 400, "body")
    assert_error(client.post(PATH, json={"model_id": "tiny"}), 400, "image")
    assert_error(client.post(PATH, content=bytes(2_000_001)), 413, "larger than 2000000")
    assert_error(ask(client, model_id="coco/3"), 404, "there are: tiny, tiny/fp32, tiny/int8")
    assert_error(client.get(PATH), 405)
    for path in ("/info/more", "/model", "/infer", "/infer/classification"):
        assert_error(client.post(path), 404)


def test_the_key_may_be_in_the_body_or_the_query():
    with serving(api_keys=KEY) as live:
        for wrong in ({}, {"api_key": None}, {"api_key": "wrong"}):
            assert_error(ask(live.client, **wrong), 401, "API key")
            assert_error(live.client.get("/model/registry", params=wrong), 401)
            for path in ("/model/add", "/model/remove"):
                assert_error(live.client.post(path, json={"model_id": "x"} | wrong), 401)
        assert_error(live.client.post("/model/clear"), 401)
        assert ask(live.client, api_key=KEY).status_code == 200
        assert live.client.get("/model/registry", params={"api_key": KEY}).status_code == 200
        added = live.client.post("/model/add", json={"model_id": "tiny", "api_key": KEY})
        assert added.status_code == 200
        header = {"Authorization": f"Bearer {KEY}"}
        assert live.client.post("/model/clear", headers=header).status_code == 200
