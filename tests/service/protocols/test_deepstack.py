"""DeepStack's detection over a socket, as Frigate, Blue Iris and Home Assistant use it."""

import httpx
import pytest

from tests.fakes import FakeEngine, variants_of, yolov5_raw
from tests.service.live import serving
from tests.service.pictures import jpeg

PATH = "/v1/vision/detection"
KEY = "0123456789abcdef"


def ask(client: httpx.Client, path: str = PATH, image: bytes | None = None, **fields: str):
    return client.post(path, files={"image": image or jpeg()}, data=fields)


def assert_error(answer: httpx.Response, status: int, words: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()
    assert error["success"] is False
    assert error["code"] == status
    assert "predictions" not in error
    assert words in error["error"]


def test_the_answer_has_the_keys_of_deepstack_and_of_codeproject_ai(client):
    answer = ask(client, "/v1/vision/custom/tiny-fp32", min_confidence="0.4", api_key="")
    assert answer.status_code == 200
    assert answer.headers["x-qyolo-variant"] == "fp32"
    content = answer.json()
    person = {"confidence": 0.9, "label": "person"}
    dog = {"confidence": 0.6, "label": "dog"}
    assert content["predictions"] == [
        person | {"x_min": 75, "y_min": 38, "x_max": 125, "y_max": 62},
        dog | {"x_min": 25, "y_min": 12, "x_max": 50, "y_max": 38},
    ]
    assert content["success"] is True
    assert content["duration"] >= 0
    assert (content["message"], content["count"]) == ("Found person, dog", 2)
    assert (content["code"], content["command"]) == (200, "detect")
    for key in ("inferenceMs", "processMs", "analysisRoundTripMs"):
        assert isinstance(content[key], int)
    assert content["inferenceDevice"] == content["executionProvider"] == "CPU"
    assert content["requestId"] == answer.headers["x-request-id"]


def test_the_default_threshold_is_0_4(client):
    assert [row["confidence"] for row in ask(client).json()["predictions"]] == [0.85, 0.5]
    assert ask(client, min_confidence="0.6").json()["count"] == 1
    nothing = ask(client, min_confidence="0.95").json()
    assert (nothing["predictions"], nothing["message"]) == ([], "No objects found")
    low = ask(client, "/v1/vision/custom/tiny-fp32", min_confidence="0.05").json()
    assert [row["label"] for row in low["predictions"]] == ["person", "dog", "traffic light"]


def test_frigate_gets_at_most_20_boxes_of_the_classes_in_its_url():
    """It stops at a score below 0.4 or at an unknown label, and fails at a 21st box."""
    rows = [(32.0, 2.0 * row, 8.0, 1.0, 0.99 - row / 100, row % 3) for row in range(32)]
    with serving(variants_of({"int8": FakeEngine(yolov5_raw(rows))})) as live:
        answer = ask(live.client, f"{PATH}?classes=person,dog", jpeg(64, 64), api_key="")
    predictions = answer.json()["predictions"]
    scores = [row["confidence"] for row in predictions]
    assert len(predictions) == 20
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 0.4
    assert {row["label"] for row in predictions} == {"person", "dog"}
    for row in predictions:
        corners = [row[key] for key in ("x_min", "y_min", "x_max", "y_max")]
        assert all(isinstance(corner, int) and 0 <= corner <= 64 for corner in corners)


@pytest.mark.parametrize("options", [{}, {"data": {"api_key": ""}}, {"files": {"api_key": ""}}])
def test_the_custom_models_are_the_variants(client, options):
    answer = client.post("/v1/vision/custom/list", **options)
    assert answer.json() == {
        "success": True,
        "models": ["tiny", "tiny-fp32", "tiny-int8"],
        "duration": 0,
    }
    for name, variant in {"tiny": "int8", "tiny-fp32": "fp32"}.items():
        found = ask(client, f"/v1/vision/custom/{name}")
        assert found.headers["x-qyolo-variant"] == variant


FORM = {"files": {"image": jpeg()}}
BAD = {
    "no form": ({"content": b""}, "multipart"),
    "no image": ({"files": {"photo": jpeg()}}, "image"),
    "not an image": ({"files": {"image": b"hello"}}, "not a JPEG"),
    "a torn image": ({"files": {"image": jpeg()[:-500]}}, "truncated"),
    "too much": ({"files": {"image": bytes(2_000_001)}}, "larger than 2000000"),
    "no number": (FORM | {"data": {"min_confidence": "much"}}, "min_confidence"),
    "not a number": (FORM | {"data": {"min_confidence": "nan"}}, "min_confidence"),
    "a number too large": (FORM | {"data": {"min_confidence": "1.5"}}, "min_confidence"),
}


@pytest.mark.parametrize(("sent", "words"), BAD.values(), ids=BAD)
def test_a_bad_request_is_400_in_json(client, sent, words):
    assert_error(client.post(PATH, **sent), 400, words)


def test_unknown_paths_models_and_classes_are_refused(client):
    assert_error(ask(client, "/v1/vision/custom/other"), 404, "there are: tiny, tiny-fp32")
    assert_error(ask(client, f"{PATH}?classes=cat"), 400, "no class 'cat'")
    assert_error(client.get(PATH), 405)
    for path in ("/v1/vision", "/v1/vision/face"):
        assert_error(client.post(path), 404)


def test_the_key_may_be_in_the_form():
    with serving(api_keys=KEY) as live:
        for fields in ({}, {"api_key": ""}, {"api_key": "wrong"}):
            assert_error(ask(live.client, **fields), 401, "API key")
            assert_error(ask(live.client, "/v1/vision/custom/other", **fields), 401)
            assert_error(live.client.post("/v1/vision/custom/list", data=fields), 401)
        assert ask(live.client, api_key=KEY).status_code == 200
        listed = live.client.post("/v1/vision/custom/list", files={"api_key": (None, KEY.encode())})
        assert listed.json()["models"][0] == "tiny"
        by_header = live.client.post(
            PATH, files={"image": jpeg()}, headers={"X-API-Key": KEY}, data={"api_key": ""}
        )
        assert by_header.status_code == 200
