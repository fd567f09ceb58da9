"""POST /v1/detect over a socket: every form of body, query and response."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.service.live import DOG, PERSON, STAGES, assert_problem, post
from tests.service.pictures import encoded, gradient, jpeg, png


def raw(data: bytes | list[bytes], media_type: str) -> dict:
    return {"content": data, "headers": {"Content-Type": media_type}}


BODIES = {
    "raw jpeg": raw(jpeg(), "image/jpeg"),
    "raw png": raw(png(), "image/png"),
    "raw webp": raw(encoded(gradient(200, 100), "WEBP"), "image/webp"),
    "raw bmp": raw(encoded(gradient(200, 100), "BMP"), "image/bmp"),
    "octets": raw(png(), "application/octet-stream"),
    "a wrong subtype, capitals and parameters": raw(png(), "Image/GIF; name=a.gif"),
    "chunks": raw([png()[:99], png()[99:]], "image/x"),
    "part file": {"files": {"file": ("a.jpg", jpeg(), "image/jpeg")}},
    "part image and a field": {"files": {"image": ("a.jpg", jpeg())}, "data": {"note": "hello"}},
    "json": {"json": {"image": base64.b64encode(jpeg()).decode()}},
    "json data url": {
        "json": {"image": "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()}
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_every_body_form_gives_the_same_boxes_in_source_pixels(client, body):
    answer = client.post("/v1/detect", params={"variant": "fp32"}, **body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert content["model"] == "tiny"
    assert content["variant"] == "fp32"
    assert content["image"] == {"width": 200, "height": 100}
    assert content["detections"] == [PERSON, DOG]
    assert set(content["timings_ms"]) == STAGES


def test_stages_add_up_to_no_more_than_the_total(client):
    timings = post(client, jpeg()).json()["timings_ms"]
    total = timings.pop("total")
    assert all(value >= 0 for value in timings.values())
    assert sum(timings.values()) <= total + 0.01


def test_a_tall_image_is_padded_at_the_sides(client):
    content = post(client, jpeg(100, 200), params={"variant": "fp32", "classes": "person"}).json()
    # scale 0.32, 16 columns of padding at the left: x 24..40 -> 25..75, y 28..36 -> 87.5..112.5
    assert content["image"] == {"width": 100, "height": 200}
    assert content["detections"][0]["box"] == [25.0, 87.5, 75.0, 112.5]


@pytest.mark.parametrize(
    ("path", "variant"),
    [
        ("/v1/detect", "int8"),
        ("/v1/detect?variant=fp32", "fp32"),
        ("/v1/models/fp32/detect", "fp32"),
        ("/v1/models/auto/detect", "int8"),
    ],
)
def test_the_variant_is_the_requested_or_the_default_one(client, path, variant):
    answer = post(client, jpeg(), path)
    assert answer.json()["variant"] == variant
    assert answer.headers["x-qyolo-variant"] == variant


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("conf=0.7", ["person"]),
        ("conf=0.05", ["person", "dog", "traffic light"]),
        ("conf=0.95", []),
        ("conf=0.95&conf=0.7", ["person"]),  # the last one counts
        ("iou=1", ["person", "person", "dog"]),
        ("max_det=1", ["person"]),
        ("classes=dog", ["dog"]),
        ("classes=2", ["dog"]),
        ("classes=0,2", ["person", "dog"]),
        ("classes=dog&classes=person", ["person", "dog"]),
        ("classes=traffic%20light, dog&conf=0.05", ["dog", "traffic light"]),
        ("classes=", ["person", "dog"]),
    ],
)
def test_the_query_selects_boxes(client, query, found):
    answer = post(client, jpeg(), f"/v1/models/fp32/detect?{query}")
    assert [row["class_name"] for row in answer.json()["detections"]] == found


@pytest.mark.parametrize(
    "query",
    [
        "conf=1", "conf=-0.1", "conf=nan", "conf=much", "iou=0", "iou=1.01", "max_det=0",
        "max_det=1001", "max_det=1.5", "confidence=0.5", "min=1&min=2", "conf=", "collect=perhaps",
    ],
)  # fmt: skip
def test_a_bad_query_is_422_and_names_the_parameter(client, query):
    problem = assert_problem(post(client, jpeg(), f"/v1/detect?{query}"), 422, "invalid-request")
    assert query.partition("=")[0] in problem["detail"]


@pytest.mark.parametrize("name", ["cat", "3", "-1", "9" * 5000, "²"])
def test_an_unknown_class_is_422_and_is_named(client, name):
    problem = assert_problem(post(client, jpeg(), params={"classes": name}), 422, "unknown-class")
    assert name in problem["detail"]


@pytest.mark.parametrize(
    "path", ["/v1/detect?variant=fp16", "/v1/models/fp16/detect", "/v1/compare?b=fp16"]
)
def test_an_unknown_variant_is_404_and_names_the_known_ones(client, path):
    problem = assert_problem(post(client, jpeg(), path), 404, "variant-not-found")
    assert "fp32, int8" in problem["detail"]


FORM = "multipart/form-data; boundary=x"
CUT_FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nab'
BAD_BODIES = {
    "empty": raw(b"", "image/png"),
    "no such part": {"files": {"picture": ("a.jpg", jpeg())}},
    "part without filename": {"files": {"file": (None, b"text")}},
    "text beside a file": {"files": {"file": ("a.jpg", jpeg()), "image": (None, b"text")}},
    "empty part": {"files": {"file": ("a.jpg", b"")}},
    "two files": {"files": [("file", ("a.jpg", jpeg())), ("image", ("b.jpg", jpeg()))]},
    "no boundary": raw(b"x", "multipart/form-data"),
    "incomplete multipart": raw(CUT_FORM, FORM),
    "no multipart": raw(b"hello", FORM),
    "not json": raw(b"{", "application/json"),
    "json without image": {"json": {"file": "abcd"}},
    "json with another field": {"json": {"image": "abcd", "conf": 0.5}},
    "bad alphabet": {"json": {"image": "ab$d"}},
    "bad padding": {"json": {"image": "abc"}},
    "not ascii": {"json": {"image": "äöüß"}},
    "empty base64": {"json": {"image": ""}},
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_that_cannot_be_read_is_400(client, body):
    assert assert_problem(client.post("/v1/detect", **body), 400, "bad-request")["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"},
    ],
)
def test_another_media_type_is_415_and_names_the_accepted_ones(client, headers):
    answer = client.post("/v1/detect", content=jpeg(), headers=headers)
    problem = assert_problem(answer, 415, "unsupported-upload")
    if "Content-Encoding" not in headers:
        assert "multipart/form-data" in problem["detail"]
        assert "application/json" in problem["detail"]


BAD_IMAGES = {
    "text": (b"hello", 415, "not-an-image"),
    "truncated": (jpeg()[:-500], 422, "corrupt-image"),
    "too many pixels": (encoded(Image.new("L", (1001, 1000)), "PNG"), 413, "image-too-large"),
    "too many bytes": (bytes(2_000_001), 413, "payload-too-large"),
}


@pytest.mark.parametrize(("data", "status", "kind"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_a_bad_image_is_refused(client, data, status, kind):
    problem = assert_problem(post(client, data), status, kind)
    assert ("1001x1000" in problem["detail"]) == (kind == "image-too-large")


def test_a_body_without_a_length_that_becomes_too_large_is_413(client):
    chunks = (bytes(100_000) for _ in range(21))
    answer = client.post("/v1/detect", content=chunks, headers={"Content-Type": "image/png"})
    assert "content-length" not in answer.request.headers
    assert_problem(answer, 413)


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png"])
def test_a_picture_comes_with_its_boxes_drawn(client, media_type):
    blank = encoded(Image.new("RGB", (200, 100)), "PNG")
    answer = post(client, blank, params={"variant": "fp32"}, headers={"Accept": media_type})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-qyolo-variant"] == "fp32"
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.format == media_type.removeprefix("image/").upper()
    assert picture.size == (200, 100)
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels[62, 80:120].max() > 150  # the person's lower edge
    assert pixels[80:, 140:].max() < 30  # nothing is detected there


ACCEPTED = {
    "": "application/json",
    "*/*": "application/json",
    "IMAGE/PNG": "image/png",
    "image/*": "image/jpeg",
    "image/*, image/jpeg;q=0.5": "image/png",
    "image/png;q=0.5, application/json;q=0.4": "image/png",
    "application/json; charset=utf-8; q=0.9, image/png ;q=0.8": "application/json",
    "image/png, application/json": "application/json",
    "*/*, application/json;q=0, image/jpeg;q=0.0": "image/png",
    "text/html, */*;q=0.1": "application/json",
}


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/compare"])
def test_the_accept_header_selects_the_media_type(client, path):
    for accept, media_type in ACCEPTED.items():
        answer = post(client, jpeg(), path, headers={"Accept": accept})
        assert answer.headers["content-type"] == media_type, accept
        assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/compare"])
@pytest.mark.parametrize(
    "accept", ["text/html", "image/png;q=0", "image/png;q=high", "image/png;q=2", ",;,"]
)
def test_an_unacceptable_answer_is_406(client, path, accept):
    problem = assert_problem(post(client, jpeg(), path, headers={"Accept": accept}), 406)
    assert "image/png" in problem["detail"]
