"""Headers for browsers: types, frames, and the pages of other origins."""

import pytest

from tests.service.live import post, serving
from tests.service.pictures import jpeg

PAGE = "https://page.example"
KEY = "a-key-of-the-page"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
ALLOWED = "access-control-allow-origin"


@pytest.fixture(scope="module")
def cors():
    with serving(cors_origins=f"{PAGE}, https://b.example", api_keys=KEY) as live:
        yield live.client


def test_browsers_may_not_guess_the_type_of_any_response(client):
    for path in ("/healthz", "/v1/models", "/v1/nothing", "/", "/metrics", "/openapi.json"):
        assert client.get(path).headers["x-content-type-options"] == "nosniff"


def test_html_pages_are_shown_in_no_frame(client):
    for path in ("/", "/docs"):
        assert client.get(path).headers["x-frame-options"] == "DENY"
    assert "x-frame-options" not in client.get("/v1/models").headers


def test_pages_of_other_origins_may_not_call_the_api(client, cors):
    assert ALLOWED not in client.get("/healthz", headers=PREFLIGHT).headers
    assert client.options("/v1/detect", headers=PREFLIGHT).status_code == 405
    other = {"Origin": "https://other.example"}
    assert ALLOWED not in cors.get("/healthz", headers=other).headers
    assert cors.options("/v1/detect", headers=PREFLIGHT | other).status_code == 400


def test_pages_of_configured_origins_may_call_the_api_and_read_errors(cors):
    headers = PREFLIGHT | {"Access-Control-Request-Headers": "authorization, content-type"}
    preflight = cors.options("/v1/detect", headers=headers)
    assert preflight.status_code == 200
    assert preflight.headers[ALLOWED] == PAGE
    assert "access-control-allow-credentials" not in preflight.headers
    for key, status in ((KEY, 200), ("wrong", 401)):
        headers = {"Origin": PAGE, "Authorization": f"Bearer {key}"}
        response = post(cors, jpeg(), headers=headers)
        assert response.status_code == status
        assert response.headers[ALLOWED] == PAGE
        assert "X-Request-ID" in response.headers["access-control-expose-headers"]
