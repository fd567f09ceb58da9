"""API keys and rate limits over a socket."""

import re

import httpx
import pytest
from fastapi.routing import APIRoute

from service.app import PUBLIC
from service.http.api_paths import PathSet
from tests.service.http.test_detect import assert_problem, post
from tests.service.live import serving, two_variants
from tests.service.pictures import jpeg

CAMERA, DOOR = "a-key-of-the-camera", "a-key-of-the-door"
KEYS = f"camera:{CAMERA},door:{DOOR}"


@pytest.fixture(scope="module")
def live():
    variants, *_ = two_variants()
    with serving(variants, api_keys=KEYS) as running:
        yield running


@pytest.fixture
def client(live):
    return live.client


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {CAMERA}"},
        {"Authorization": f"bearer  {DOOR}"},
        {"X-API-Key": DOOR},
    ],
)
def test_a_key_in_either_header_opens_every_route(client, headers):
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
def test_without_a_known_key_nothing_opens(client, headers):
    for path in ("/v1/models", "/metrics", "/v1/nothing", "//v1/models", "/page/../v1/models"):
        answer = client.get(path, headers=headers)
        problem = assert_problem(answer, 401)
        assert problem["type"] == "urn:qyolo:problem:unauthorized"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert post(client, b"", headers=headers).status_code == 401


def test_probes_and_pages_stay_open(client):
    for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json", "/page/index.html"):
        assert client.get(path).status_code == 200


def test_the_openapi_document_tells_how_to_send_a_key(client):
    document = client.get("/openapi.json").json()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}


def test_a_refusal_is_counted_under_its_route(client):
    client.get("/v1/models")
    metrics = client.get("/metrics", headers={"X-API-Key": CAMERA}).text
    assert 'route="/v1/models",status="401"' in metrics


def test_metrics_may_be_open():
    variants, *_ = two_variants()
    with serving(variants, api_keys=KEYS, open_metrics=True) as live:
        assert live.client.get("/metrics").status_code == 200
        assert live.client.get("/v1/models").status_code == 401


def test_each_key_has_its_own_rate():
    variants, *_ = two_variants()
    with serving(variants, api_keys=KEYS, rate_limit=0.1, rate_burst=2) as live:

        def ask(key: str) -> httpx.Response:
            return live.client.get("/v1/models", headers={"X-API-Key": key})

        assert [ask(CAMERA).status_code for _ in range(2)] == [200, 200]
        refused = ask(CAMERA)
        problem = assert_problem(refused, 429)
        assert problem["type"] == "urn:qyolo:problem:rate-limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert ask(DOOR).status_code == 200
        assert [ask("a guess").status_code for _ in range(3)] == [401, 401, 429]
        assert all(live.client.get("/healthz").status_code == 200 for _ in range(5))


def test_without_keys_each_address_has_its_own_rate():
    variants, *_ = two_variants()
    limits = {"rate_limit": 0.1, "rate_burst": 1}
    with serving(variants, **limits) as live:
        claims = [{"X-Forwarded-For": f"192.0.2.{n}"} for n in (1, 2)]  # nobody believes these
        answers = [live.client.get("/v1/models", headers=each).status_code for each in claims]
        assert answers == [200, 429]
    variants, *_ = two_variants()
    with serving(variants, trusted_proxies="127.0.0.1", **limits) as live:
        answers = [live.client.get("/v1/models", headers=each).status_code for each in claims]
        assert answers == [200, 200]


def test_no_route_answers_without_a_key_but_the_public_ones(live):
    app = live.server.config.app
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    public = PathSet(PUBLIC)
    guarded = [route for route in routes if route.path not in public]
    assert len(guarded) > 8
    for route in guarded:
        for method in route.methods:
            path = re.sub(r"{\w+}", "x", route.path)
            answer = live.client.request(method, path, files={"image": ("a.jpg", jpeg())})
            assert 400 <= answer.status_code < 500, route.path
            answer = live.client.request(method, path, json={"model_id": "x", "api_key": "wrong"})
            assert 400 <= answer.status_code < 500, route.path
