"""API keys and rate limits over a socket."""

import base64
import json
import logging
import re
import socket
import time

import httpx
import pytest
from fastapi.routing import APIRoute

from service.app import PUBLIC
from service.http.api_paths import PathSet
from service.middleware.key_in_body import WITHIN
from tests.service.live import assert_problem, post, serving
from tests.service.pictures import encoded, jpeg, noise
from tests.service.raw import connected, head, upload
from tests.waiting import wait_until

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


KEYED_PATHS = ("/infer/object_detection", "/model/add", "/v1/vision/detection")


def test_without_a_key_no_more_than_the_start_of_a_body_is_read():
    with serving(api_keys=KEYS) as live:
        for path in KEYED_PATHS:
            with connected(live.port) as client:
                client.send(head("POST", path, Content_Length=20_000_000), b"{" + b" " * WITHIN)
                response = client.response()
                assert response.status == 401
                assert str(WITHIN).encode() in response.body


@pytest.mark.parametrize("size", [100, 200_000])
def test_a_key_at_the_start_of_a_body_is_found_in_one_piece_and_in_many(size):
    """The whole body still reaches the route."""
    odd = 'a-"quoted"-and-\\\\-key'
    image = encoded(noise(60, 60 + size // 200), "BMP")
    picture = {"type": "base64", "value": base64.b64encode(image).decode()}
    sent = {"model_id": "tiny", "api_key": odd, "image": picture}
    parts = (
        f"--x\r\nContent-Disposition: form-data; name=api_key\r\n\r\n{odd}\r\n--x\r\n"
        'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    )
    form = parts.encode() + image + b"\r\n--x--\r\n"
    with serving(api_keys=f"odd:{odd}") as live, connected(live.port) as client:
        for path, body, media_type in (
            ("/infer/object_detection", json.dumps(sent).encode(), "application/json"),
            ("/v1/vision/detection", form, "multipart/form-data; boundary=x"),
        ):
            request = upload(body, path, Content_Type=media_type)
            for start in range(0, len(request), 20_000):
                client.send(request[start : start + 20_000])
                time.sleep(0.01)
            assert client.response().status == 200


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"image": "x" * WITHIN, "api_key": CAMERA}),  # too late
        json.dumps({"image": json.dumps({"api_key": CAMERA})}),  # a text, not a field
        '{"api_key": "' + "\\" * 50_000,
        '"api_key":' * 3_000,
        "",
    ],
    ids=["late", "text", "escapes", "repeated", "empty"],
)
def test_no_other_body_has_a_key(client, body):
    assert client.post("/infer/object_detection", content=body).status_code == 401


def test_every_request_counts_at_its_headers():
    """Malformed bodies, other methods and unknown paths too, with keys and without."""
    requests = [
        ("POST", "/infer/object_detection", b"{"),
        ("POST", "/v1/vision/detection", b"no form"),
        ("GET", "/infer/object_detection", b""),
        ("OPTIONS", "/model/add", b""),
        ("POST", "/v1/vision/unknown", b""),
        ("GET", "/v1/models", b""),
    ]
    limits = {"rate_limit": 0.01, "rate_burst": 3, "trusted_proxies": "127.0.0.1"}
    for keys in (None, KEYS):
        with serving(api_keys=keys, **limits) as live:
            for number, (method, path, body) in enumerate(requests):
                client = {"X-Forwarded-For": f"192.0.2.{number}"}
                statuses = [
                    live.client.request(method, path, content=body, headers=client).status_code
                    for _ in range(8)
                ]
                assert 429 not in statuses[:3], (keys, method, path)
                assert statuses[3:] == [429] * 5, (keys, method, path)


def test_a_request_with_a_key_in_its_body_counts_against_the_key_alone():
    with serving(api_keys=KEYS, rate_limit=0.01, rate_burst=2) as live:

        def status(key: str) -> int:
            body = {"model_id": "tiny", "api_key": key}
            return live.client.post("/model/add", json=body).status_code

        assert [status(CAMERA) for _ in range(3)] == [200, 200, 429]
        assert [status(DOOR) for _ in range(3)] == [200, 200, 429]
        assert status("wrong") == 401


def test_a_body_without_a_key_has_a_time_limit():
    with serving(api_keys=KEYS, body_timeout_s=0.3) as live, connected(live.port) as client:
        client.send(upload(b"{", "/infer/object_detection", Content_Length=1000))
        assert client.response().status == 408


def test_a_forwarded_text_that_is_no_address_is_neither_logged_nor_a_client(caplog):
    caplog.set_level(logging.INFO)
    with serving(trusted_proxies="127.0.0.1", rate_limit=0.1, rate_burst=3) as live:

        def status(forwarded: str) -> int:
            headers = {"X-Forwarded-For": forwarded}
            return live.client.get("/v1/models", headers=headers).status_code

        texts = ["x status=200 key=admin", "fe80 key=admin", "192.0.2.1, x key=admin"]
        assert [status(text) for text in texts] == [200, 200, 200]
        assert status("y key=admin") == 429  # all of them were the proxy
        assert status("x key=admin, 192.0.2.1:4711") == 200
        assert status("fe80::1%x key=admin") == 200
        wait_until(lambda: sum("answered" in each.message for each in caplog.records) >= 6)
    clients = [each.fields["client"] for each in caplog.records if each.message == "answered"]
    assert clients == ["127.0.0.1"] * 4 + ["192.0.2.1", "fe80::1"]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_a_socket_of_both_families_tells_ipv4_clients_apart(caplog):
    """They arrive as ::ffff:a.b.c.d, which are one IPv6 network."""
    caplog.set_level(logging.INFO)
    limits = {"rate_limit": 0.1, "rate_burst": 1}
    with serving(host="::", insecure=True, trusted_proxies="127.0.0.3", **limits) as live:

        def status(source: str, **headers: str) -> int:
            transport = httpx.HTTPTransport(local_address=source)
            with httpx.Client(transport=transport) as client:
                url = f"http://127.0.0.1:{live.port}/v1/models"
                return client.get(url, headers=headers).status_code

        assert [status("127.0.0.1"), status("127.0.0.1"), status("127.0.0.2")] == [200, 429, 200]
        forwarded = {"X-Forwarded-For": "::ffff:192.0.2.1"}
        assert [status("127.0.0.3", **forwarded), status("127.0.0.3")] == [200, 200]
        wait_until(lambda: sum("answered" in each.message for each in caplog.records) >= 5)
    clients = [each.fields["client"] for each in caplog.records if each.message == "answered"]
    assert clients == ["127.0.0.1", "127.0.0.1", "127.0.0.2", "192.0.2.1", "127.0.0.3"]


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
