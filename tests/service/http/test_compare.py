"""POST /v1/compare: how the boxes of two variants agree, as JSON and as a picture."""

import io

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.live import DOG, PERSON, STAGES, post
from tests.service.pictures import encoded, jpeg

BLANK = encoded(Image.new("RGB", (200, 100)), "PNG")


def compare(client: httpx.Client, data: bytes, accept: str, query: str = "") -> httpx.Response:
    headers = {"Content-Type": "image/png", "Accept": accept}
    return client.post(f"/v1/compare{query}", content=data, headers=headers)


def pixels_of(answer: httpx.Response) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)


def test_the_boxes_of_both_variants_are_paired_and_their_latencies_share_one_decode(client):
    content = post(client, jpeg(), "/v1/compare").json()
    assert content["model"] == "tiny"
    assert content["image"] == {"width": 200, "height": 100}
    assert (content["a"]["variant"], content["a"]["boxes"]) == ("fp32", 2)
    assert (content["b"]["variant"], content["b"]["boxes"]) == ("int8", 2)
    (pair,) = content["matched"]
    assert (pair["class_id"], pair["class_name"]) == (0, "person")
    assert pair["iou"] == pytest.approx(0.95, abs=1e-3)
    assert (pair["score_a"], pair["score_b"]) == (0.9, 0.85)
    assert pair["box_a"] == PERSON["box"]
    assert pair["box_b"] == [76.25, 37.5, 123.75, 62.5]
    assert content["only_a"] == [DOG]
    assert [row["class_name"] for row in content["only_b"]] == ["traffic light"]
    assert content["mean_iou"] == pair["iou"]
    assert content["mean_score_difference"] == pytest.approx(0.05, abs=1e-3)
    assert content["max_score_difference"] == pytest.approx(0.05, abs=1e-3)
    a, b = content["a"]["timings_ms"], content["b"]["timings_ms"]
    assert set(a) == set(b) == STAGES
    assert (a["decode"], a["preprocess"]) == (b["decode"], b["preprocess"])


def test_the_query_names_variants_and_filters_boxes(client):
    content = post(client, jpeg(), "/v1/compare?a=int8&b=int8&classes=person").json()
    assert (content["a"]["variant"], content["b"]["variant"]) == ("int8", "int8")
    assert content["mean_iou"] == 1.0
    assert content["only_a"] == content["only_b"] == []


def test_without_boxes_there_are_no_means(client):
    content = post(client, jpeg(), "/v1/compare?conf=0.99").json()
    assert content["matched"] == []
    assert content["mean_iou"] is content["max_score_difference"] is None


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png"])
def test_both_variants_are_drawn_into_one_picture_of_the_accepted_type(client, media_type):
    answer = compare(client, BLANK, media_type)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.format == media_type.removeprefix("image/").upper()
    assert picture.width > 2 * 200
    assert 100 < picture.height < 200


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
