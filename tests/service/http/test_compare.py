"""POST /v1/compare when a picture of both sides is asked for."""

import io

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.fakes import FakeEngine, variants_of
from tests.service.live import FP32_RAW, INT8_RAW, serving
from tests.service.pictures import encoded, jpeg

BLANK = encoded(Image.new("RGB", (200, 100)), "PNG")


@pytest.fixture(scope="module")
def client():
    engines = {"fp32": FakeEngine(FP32_RAW), "int8": FakeEngine(INT8_RAW)}
    with serving(variants_of(engines)) as live:
        yield live.client


def compare(client: httpx.Client, data: bytes, accept: str, query: str = "") -> httpx.Response:
    headers = {"Content-Type": "image/png", "Accept": accept}
    return client.post(f"/v1/compare{query}", content=data, headers=headers)


def pixels_of(answer: httpx.Response) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png"])
def test_both_sides_come_in_one_picture_of_the_type_asked_for(client, media_type):
    answer = compare(client, BLANK, media_type)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["vary"] == "Accept"
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.format == media_type.removeprefix("image/").upper()
    assert picture.width > 2 * 200
    assert 100 < picture.height < 200


def test_json_is_the_answer_where_the_client_does_not_mind(client):
    for accept in ("*/*", "application/json", "text/html, */*;q=0.1"):
        answer = compare(client, jpeg(), accept)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["vary"] == "Accept"
        assert len(answer.json()["matched"]) == 1


def test_an_unacceptable_answer_is_406(client):
    answer = compare(client, jpeg(), "text/html")
    assert answer.status_code == 406
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_picture_shows_the_boxes_above_the_confidence(client):
    def coloured(query: str) -> int:
        pixels = pixels_of(compare(client, BLANK, "image/png", query))
        return int((np.ptp(pixels, axis=2) > 100).sum())

    assert coloured("?conf=0.95") == 0
    assert 0 < coloured("?conf=0.7") < coloured("?conf=0.05")


def test_a_variant_compared_with_itself_has_no_dashes(client):
    same = pixels_of(compare(client, BLANK, "image/png", "?a=fp32&b=fp32"))
    ground = np.argwhere(np.all(same == 0, axis=2))
    left, right = ground[:, 1].min(), ground[:, 1].max() + 1
    top = ground[:, 0].min()
    one = same[top:, left : left + 200]
    other = same[top:, right - 200 : right]
    assert np.array_equal(one[:100], other[:100])


def test_openapi_tells_of_the_picture(client):
    operation = client.get("/openapi.json").json()["paths"]["/v1/compare"]["post"]
    assert set(operation["responses"]["200"]["content"]) == {
        "application/json",
        "image/jpeg",
        "image/png",
    }
    assert "406" in operation["responses"]
