"""One connection over a raw socket: slow, oversized and malformed requests, and slow readers."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from service.transport.protocol import SPARE
from tests.service.live import Live, serving
from tests.service.pictures import encoded, jpeg, noise
from tests.service.raw import HOST, RawClient, connected, head, upload
from tests.waiting import WAIT_LIMIT_S, wait_until

TIMEOUT_S = 0.4


@pytest.fixture(scope="module")
def live():
    limits = {"header_timeout_s": TIMEOUT_S, "body_timeout_s": TIMEOUT_S}
    with serving(max_bytes=300_000, **limits) as running:
        yield running


@pytest.fixture
def client(live):
    with connected(live.port) as connection:
        yield connection


# Headers


@pytest.mark.parametrize("first_requests", [0, 1])
def test_headers_that_trickle_in_get_408(client, first_requests):
    for _ in range(first_requests):
        client.send(head("GET", "/healthz"))
        assert client.response().status == 200
    began = time.monotonic()
    with client.trickling("GET /healthz HTTP/1.1\r\n" + "A" * 1000):
        response = client.response()
        assert response.status == 408
        assert response.headers["content-type"] == "application/problem+json"
        assert client.is_closed()
    assert TIMEOUT_S * 0.9 < time.monotonic() - began < TIMEOUT_S * 5


def test_a_head_that_follows_at_once_has_its_time_after_the_response(client):
    client.send(upload(jpeg()), "GET /healthz HTTP/1.1\r\n")
    assert client.response().status == 200
    assert client.response().status == 408
    assert client.is_closed()


def test_a_silent_connection_is_closed(client):
    assert client.is_closed()


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (f"GET /{'a' * 9000} HTTP/1.1", "", 414),
        ("GET /healthz HTTP/1.1", f"A: {'a' * 20_000}\r\n", 431),
        ("GET /healthz HTTP/1.1", "A: a\r\n" * 100, 431),
        ("GET /healthz HTTP/9", "", 400),
        ("nonsense", "", 400),
        ("BREW /healthz HTTP/1.1", "", 405),
    ],
    ids=["url", "bytes", "count", "version", "nonsense", "method"],
)
def test_an_invalid_head_is_rejected_in_one_piece_and_in_many(live, request_line, headers, status):
    sent = f"{request_line}\r\n{HOST}{headers}\r\n".encode()
    for size in (len(sent), 4000):
        with connected(live.port) as client:
            for start in range(0, len(sent), size):
                client.send(sent[start : start + size])
                time.sleep(0.01)
            response = client.response()
            assert response.status in (status, 431)  # a long URL in pieces is a large head
            assert response.json()["status"] == response.status
            assert client.is_closed()


@pytest.mark.parametrize("hosts", ["", HOST * 2], ids=["none", "two"])
def test_a_request_names_one_host(client, hosts):
    client.send(f"GET /healthz HTTP/1.1\r\n{hosts}\r\n")
    assert client.response().status == 400
    assert client.is_closed()


def test_an_invalid_request_does_not_take_the_answer_of_the_one_before(client):
    client.send(upload(jpeg()), "nonsense\r\n\r\n")
    response = client.response()
    assert response.status == 200
    assert response.headers["connection"] == "close"
    assert client.is_closed()


def test_no_response_names_the_server_s_software(client):
    client.send(head("GET", "/nothing"))
    responses = [client.response()]
    client.send("nonsense\r\n\r\n")
    responses.append(client.response())
    for response in responses:
        text = f"{response.headers} {response.body}".lower()
        assert not {"uvicorn", "httptools", "llhttp", "fastapi", "python", "bytearray"} & set(
            text.split()
        )
        assert "server" not in response.headers


def test_an_upgrade_is_ignored_without_a_warning(client, caplog):
    with caplog.at_level(logging.INFO):
        upgrade = head("GET", "/healthz", Connection="Upgrade", Upgrade="websocket")
        client.send(upgrade, upgrade)
        assert [client.response().status for _ in range(2)] == [200, 200]
    assert "upgrade" not in caplog.text.lower()


# Bodies


def test_a_chunked_body_is_read_and_limited(client):
    data = jpeg()
    start = head("POST", "/v1/detect", Content_Type="image/jpeg", Transfer_Encoding="chunked")
    client.send(start, f"{len(data):x}\r\n", data, "\r\n0\r\n\r\n")
    assert client.response().status == 200
    client.send(start, *[b"2710\r\n" + b"x" * 10_000 + b"\r\n"] * 31)
    assert client.response().status == 413


@pytest.mark.parametrize("coding", ["gzip, chunked", "xchunked"])
def test_no_other_transfer_encoding_than_chunked_is_read(client, coding):
    client.send(head("POST", "/v1/detect", Content_Type="image/jpeg", Transfer_Encoding=coding))
    assert client.response().status == 501
    assert client.is_closed()


def test_trailers_are_no_headers(client):
    """A proxy may have checked the headers alone."""
    data = jpeg()
    start = head("POST", "/v1/detect", Content_Type="image/jpeg", Transfer_Encoding="chunked")
    trailer = "X-Request-ID: trailer\r\n"
    client.send(start, f"{len(data):x}\r\n", data, "\r\n0\r\n", trailer, "\r\n")
    response = client.response()
    assert response.status == 200
    assert response.headers["x-request-id"] != "trailer"
    client.send(start, "0\r\n", "A: a\r\n" * 100, "\r\n")
    assert client.response().status == 431


def test_pipelined_requests_are_answered_in_order(client):
    client.send(upload(jpeg()), head("GET", "/v1/models"), upload(b"no image"), upload(jpeg()))
    assert [client.response().status for _ in range(4)] == [200, 200, 415, 200]


def test_a_request_with_two_framings_is_the_last_of_its_connection(client):
    """RFC 9112, 6.1: the chunks are the body, and the connection is closed after the response."""
    data = jpeg()
    framing = {"Transfer_Encoding": "chunked", "Content_Length": 4}
    client.send(head("POST", "/v1/detect", Content_Type="image/jpeg", **framing))
    client.send(f"{len(data):x}\r\n", data, "\r\n0\r\n\r\n", head("GET", "/v1/models"))
    response = client.response()
    assert response.status == 200
    assert response.headers["connection"] == "close"
    assert client.is_closed()


@pytest.mark.parametrize("framing", [{"Content_Length": 1000}, {"Transfer_Encoding": "chunked"}])
def test_a_body_after_its_response_is_discarded(client, framing):
    client.send(head("POST", "/v1/detect", Content_Type="text/plain", **framing))
    assert client.response().status == 415
    body = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".ljust(1000, b"x")
    chunked = b"3e8\r\n" + body + b"\r\n0\r\n\r\n"
    client.send(chunked if "Transfer_Encoding" in framing else body, head("GET", "/v1/models"))
    response = client.response()
    assert response.status == 200
    assert response.json()["model"] == "tiny"


def test_a_discarded_body_has_a_time_limit(client):
    client.send(head("POST", "/v1/detect", Content_Type="text/plain", Content_Length=1000))
    assert client.response().status == 415
    with client.trickling("x" * 1000):
        assert client.is_closed()


def test_a_client_that_expects_100_continue_gets_it(client):
    data = jpeg()
    client.send(upload(data, Expect="100-continue").removesuffix(data))
    assert client.response().status == 100
    client.send(data)
    assert client.response().status == 200


@pytest.mark.parametrize(
    ("changes", "status"), [({"Content_Type": "text/plain"}, 415), ({"Content_Length": 10**9}, 413)]
)
def test_an_error_in_place_of_100_continue_closes_the_connection(client, changes, status):
    """The client may send its body or its next request: the server cannot tell them apart."""
    client.send(upload(b"", Expect="100-continue", **{"Content_Length": 1000} | changes))
    response = client.response()
    assert response.status == status
    assert response.headers["connection"] == "close"
    assert client.is_closed()


@pytest.mark.parametrize("answered_first", [False, True])
def test_invalid_chunks_close_the_connection_without_a_traceback(client, caplog, answered_first):
    media_type = "text/plain" if answered_first else "image/jpeg"
    client.send(head("POST", "/v1/detect", Content_Type=media_type, Transfer_Encoding="chunked"))
    if answered_first:
        assert client.response().status == 415
    client.send("zz\r\n")
    if not answered_first:
        assert client.response().status == 400
    assert client.is_closed()
    assert "Traceback" not in caplog.text


# The number of connections, and clients that read slowly


def test_a_new_connection_replaces_an_idle_one():
    with serving(max_connections=3) as live, ExitStack() as idle:
        for _ in range(10):
            idle.enter_context(connected(live.port))
        with connected(live.port) as client:
            client.send(head("GET", "/healthz"))
            assert client.response().status == 200
        assert len(live.server.server_state.connections) <= 3


@contextmanager
def occupied(limit: int) -> Iterator[tuple[Live, list[RawClient]]]:
    """A server whose connections are all in use, by bodies of which one byte arrives."""
    with serving(max_connections=limit) as live, ExitStack() as stack:
        live.client.close()  # its connection
        clients = [stack.enter_context(connected(live.port)) for _ in range(limit)]
        for client in clients:
            client.send(upload(b"x", Content_Length=1000))
        wait_until(lambda: live.server.server_state.total_requests > 0)
        tasks = live.server.server_state.tasks
        wait_until(lambda: len(tasks) == limit)
        yield live, clients


def status_of(port: int, request: str | bytes) -> int:
    with connected(port) as client:
        client.send(request)
        return client.response().status


def test_probes_are_answered_while_all_connections_are_in_use():
    with occupied(4) as (live, clients), ExitStack() as idle:
        for _ in range(2 * SPARE):  # fill the room of the probes too
            idle.enter_context(connected(live.port))
        for path in ("/healthz", "/readyz", "/v2/health/ready", "/metrics"):
            assert status_of(live.port, head("GET", path)) == 200
        with connected(live.port) as client:
            client.send(upload(jpeg()))
            response = client.response()
            assert (response.status, response.json()["status"]) == (503, 503)
            assert client.is_closed()
        assert len(live.server.server_state.connections) <= 4 + SPARE
        with connected(live.port) as client:  # a spare connection becomes one of any request
            client.send(head("GET", "/healthz"))
            assert client.response().status == 200
            clients[0].socket.close()
            wait_until(lambda: len(live.server.server_state.tasks) < 4)
            client.send(upload(jpeg()))
            assert client.response().status == 200


@contextmanager
def small_buffers(live: Live) -> Iterator[tuple[RawClient, Callable[[], list[int]]]]:
    """A client that has requested a large picture, and the size of the server's write buffer.

    The kernel's buffers are small; a closed connection has no write buffer.
    """
    with socket.socket() as connection:
        connection.settimeout(WAIT_LIMIT_S)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", live.port))
        name = connection.getsockname()

        def transports() -> list[asyncio.Transport]:
            connections = list(live.server.server_state.connections)
            return [each.transport for each in connections if each.client == name]

        wait_until(lambda: bool(transports()))
        server_socket = transports()[0].get_extra_info("socket")
        server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client = RawClient(connection)
        client.send(upload(encoded(noise(300, 250), "JPEG"), Accept="image/png"))
        yield client, lambda: [each.get_write_buffer_size() for each in transports()]


def test_a_client_that_does_not_read_is_disconnected(live):
    with small_buffers(live) as (_, buffered):
        wait_until(lambda: buffered() > [0])
        wait_until(lambda: buffered() == [])


def test_a_client_that_reads_slowly_is_served(live):
    with small_buffers(live) as (client, _):
        end = time.monotonic() + TIMEOUT_S * 4
        while time.monotonic() < end:
            client.receive(2000)
            time.sleep(0.05)
        assert len(client.response().body) > 200_000
