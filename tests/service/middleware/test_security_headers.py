"""What browsers are told: types, frames, and which other pages may ask."""

import pytest

from tests.service.http.test_detect import post
from tests.service.live import serving, two_variants
from tests.service.pictures import jpeg

PAGE = "https://page.example"
KEY = "a-key-of-the-page"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}


@pytest.fixture(scope="module")
def closed():
    variants, *_ = two_variants()
    with serving(variants) as live:
        yield live.client


@pytest.fixture(scope="module")
def shared():
    variants, *_ = two_variants()
    with serving(variants, cors_origins=f"{PAGE}, https://b.example", api_keys=KEY) as live:
        yield live.client


def test_no_type_is_guessed_whatever_the_answer(closed):
    for path in ("/healthz", "/v1/models", "/v1/nothing", "/", "/metrics", "/openapi.json"):
        assert closed.get(path).headers["x-content-type-options"] == "nosniff"


def test_pages_are_shown_in_no_frame(closed):
    for path in ("/", "/docs"):
        assert closed.get(path).headers["x-frame-options"] == "DENY"
    assert "x-frame-options" not in closed.get("/v1/models").headers


def test_other_pages_may_not_ask_unless_they_are_named(closed, shared):
    assert "access-control-allow-origin" not in closed.get("/healthz", headers=PREFLIGHT).headers
    assert closed.options("/v1/detect", headers=PREFLIGHT).status_code == 405
    other = {"Origin": "https://other.example"}
    assert "access-control-allow-origin" not in shared.get("/healthz", headers=other).headers
    refused = shared.options("/v1/detect", headers=PREFLIGHT | other)
    assert refused.status_code == 400


def test_a_named_page_may_ask_with_its_key_and_read_even_refusals(shared):
    asked = PREFLIGHT | {"Access-Control-Request-Headers": "authorization, content-type"}
    allowed = shared.options("/v1/detect", headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-credentials" not in allowed.headers
    for key, status in ((KEY, 200), ("wrong", 401)):
        headers = {"Origin": PAGE, "Authorization": f"Bearer {key}"}
        answer = post(shared, jpeg(), headers=headers)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
