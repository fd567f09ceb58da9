"""API keys and rate limits over a socket."""

import re

import httpx
import pytest
from fastapi.routing import APIRoute

from service.app import PUBLIC
from service.http.api_paths import PathSet
from tests.service.live import assert_problem, post, serving
from tests.service.pictures import jpeg

CAMERA, DOOR = "a-key-of-the-camera", "a-key-of-the-door"
KEYS = f"camera:{CAMERA},door:{DOOR}"


@pytest.fixture(scope="module")
def live():
    with serving(api_keys=KEYS) as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {CAMERA}"},
        {"Authorization": f"bearer  {DOOR}"},
        {"X-API-Key": DOOR},
    ],
)
def test_a_key_in_either_header_is_accepted_on_every_route(client, headers):
    assert post(client, jpeg(), headers=headers).status_code == 200
    for path in ("/v1/models", "/v1/report", "/metrics"):
        assert client.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Basic {CAMERA}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {CAMERA}x"},
        {"Authorization": "Bearer wrong", "X-API-Key": CAMERA},
        {"X-API-Key": "wrong"},
        {"X-API-Key": b"\xff\xfe"},
    ],
)
def test_without_a_known_key_every_other_path_is_401(client, headers):
    for path in ("/v1/models", "/metrics", "//v1/models", "/page", "/page/../v1/models"):
        response = client.get(path, headers=headers)
        assert_problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert post(client, b"", headers=headers).status_code == 401


def test_probes_and_pages_are_public(client):
    for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json", "/page/app.js"):
        assert client.get(path).status_code == 200


def test_the_openapi_document_says_how_to_send_a_key(client):
    document = client.get("/openapi.json").json()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}


def test_metrics_may_be_public():
    with serving(api_keys=KEYS, open_metrics=True) as live:
        assert live.client.get("/metrics").status_code == 200
        assert live.client.get("/v1/models").status_code == 401


def test_each_key_has_its_own_rate():
    with serving(api_keys=KEYS, rate_limit=0.1, rate_burst=2) as live:

        def request(key: str) -> httpx.Response:
            return live.client.get("/v1/models", headers={"X-API-Key": key})

        assert [request(CAMERA).status_code for _ in range(2)] == [200, 200]
        limited = request(CAMERA)
        assert_problem(limited, 429, "rate-limited")
        assert 1 <= int(limited.headers["retry-after"]) <= 10
        assert request(DOOR).status_code == 200
        assert [request("a guess").status_code for _ in range(3)] == [401, 401, 429]
        assert all(live.client.get("/healthz").status_code == 200 for _ in range(5))


@pytest.mark.parametrize(("trusted", "statuses"), [(None, [200, 429]), ("127.0.0.1", [200, 200])])
def test_without_keys_each_address_has_its_own_rate(trusted, statuses):
    """X-Forwarded-For counts only if it comes from a trusted proxy."""
    with serving(trusted_proxies=trusted, rate_limit=0.1, rate_burst=1) as live:
        headers = [{"X-Forwarded-For": f"192.0.2.{n}"} for n in (1, 2)]
        assert [live.client.get("/v1/models", headers=h).status_code for h in headers] == statuses


def test_no_route_works_without_a_key_but_the_public_ones(live):
    public = PathSet(PUBLIC)
    routes = [route for route in live.server.config.app.routes if isinstance(route, APIRoute)]
    protected = [route for route in routes if route.path not in public]
    assert len(protected) > 8
    for route in protected:
        for method in route.methods:
            path = re.sub(r"{\w+}", "x", route.path)
            for body in (
                {"files": {"image": ("a.jpg", jpeg())}},
                {"json": {"model_id": "x", "api_key": "wrong"}},
            ):
                status = live.client.request(method, path, **body).status_code
                assert 400 <= status < 500, route.path
