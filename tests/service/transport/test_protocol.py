"""One connection over a raw socket: what a slow, greedy or confused client can do to the server."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.fakes import PATIENCE_S, FakeEngine, variants_of
from tests.service.live import FP32_RAW, Live, serving, two_variants, wait_until
from tests.service.pictures import encoded, jpeg, noise
from tests.service.raw import HOST, Raw, connected, head, upload

TIMEOUT_S = 0.4


@pytest.fixture(scope="module")
def live():
    variants, *_ = two_variants()
    limits = {"header_timeout_s": TIMEOUT_S, "body_timeout_s": TIMEOUT_S}
    with serving(variants, max_bytes=300_000, **limits) as running:
        yield running


@pytest.fixture
def client(live):
    with connected(live.port) as connection:
        yield connection


@contextmanager
def trickling(client: Raw, text: str) -> Iterator[None]:
    """Send a byte now and then, as long as the server takes it."""
    done = threading.Event()

    def trickle() -> None:
        for byte in text:
            if done.wait(TIMEOUT_S / 8):
                return
            try:
                client.send(byte)
            except OSError:
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


# ------------------------------------------------------------------------------------- headers


def test_headers_that_trickle_in_are_cut_off(client):
    began = time.monotonic()
    with trickling(client, "GET /healthz HTTP/1.1\r\n" + "A" * 1000):
        answer = client.answer()
        assert answer.status == 408
        assert answer.headers["content-type"] == "application/problem+json"
        assert client.is_closed()
    assert TIMEOUT_S * 0.9 < time.monotonic() - began < TIMEOUT_S * 5


def test_the_second_request_of_a_connection_may_not_trickle_either(client):
    client.send(head("GET", "/healthz"))
    assert client.answer().status == 200
    with trickling(client, "GET /healthz HTTP/1.1\r\n" + "A" * 1000):
        assert client.answer().status == 408


def test_a_connection_that_says_nothing_is_closed(client):
    assert client.is_closed()


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (f"GET /{'a' * 9000} HTTP/1.1", "", 414),
        ("GET /healthz HTTP/1.1", f"A: {'a' * 20_000}\r\n", 431),
        ("GET /healthz HTTP/1.1", "A: a\r\n" * 100, 431),
        ("GET /healthz HTTP/9", "", 400),
        ("nonsense", "", 400),
    ],
    ids=["url", "bytes", "count", "version", "nonsense"],
)
def test_a_head_out_of_bounds_is_refused_in_one_piece_and_in_many(
    live, request_line, headers, status
):
    sent = f"{request_line}\r\n{HOST}{headers}\r\n".encode()
    for size in (len(sent), 4000):
        with connected(live.port) as client:
            for start in range(0, len(sent), size):
                client.send(sent[start : start + size])
                time.sleep(0.01)
            answer = client.answer()
            assert answer.status in (status, 431)  # a long URL in pieces is a large head
            assert answer.json()["status"] == answer.status
            assert client.is_closed()


def test_no_answer_names_what_the_server_is_made_of(client):
    client.send(head("GET", "/nothing"))
    answers = [client.answer()]
    client.send("nonsense\r\n\r\n")
    answers.append(client.answer())
    for answer in answers:
        text = f"{answer.headers} {answer.body}".lower()
        assert not {"uvicorn", "h11", "fastapi", "python", "bytearray"} & set(text.split())
        assert "server" not in answer.headers


def test_a_wish_for_another_protocol_is_not_heard(client, caplog):
    with caplog.at_level(logging.INFO):
        client.send(head("GET", "/healthz", Connection="Upgrade", Upgrade="websocket"))
        assert client.answer().status == 200
    assert "upgrade" not in caplog.text.lower()


# ---------------------------------------------------------------------------------------- bodies


def test_a_body_in_chunks_is_read_and_bounded(client):
    data = jpeg()
    start = head("POST", "/v1/detect", Content_Type="image/jpeg", Transfer_Encoding="chunked")
    client.send(start, f"{len(data):x}\r\n", data, "\r\n0\r\n\r\n")
    assert client.answer().status == 200
    client.send(start, *[b"2710\r\n" + b"x" * 10_000 + b"\r\n"] * 31)
    assert client.answer().status == 413


def test_pipelined_requests_are_answered_in_turn(client):
    client.send(upload(jpeg()), head("GET", "/v1/models"), upload(b"no image"), upload(jpeg()))
    assert [client.answer().status for _ in range(4)] == [200, 200, 415, 200]


@pytest.mark.parametrize("framing", [{"Content_Length": 1000}, {"Transfer_Encoding": "chunked"}])
def test_an_answer_before_the_body_does_not_make_a_request_of_the_body(client, framing):
    client.send(head("POST", "/v1/detect", Content_Type="text/plain", **framing))
    assert client.answer().status == 415
    body = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".ljust(1000, b"x")
    chunked = b"3e8\r\n" + body + b"\r\n0\r\n\r\n"
    client.send(chunked if "Transfer_Encoding" in framing else body, head("GET", "/v1/models"))
    answer = client.answer()
    assert answer.status == 200
    assert answer.json()["model"] == "tiny"


def test_what_is_left_of_an_answered_body_must_come_soon(client):
    client.send(head("POST", "/v1/detect", Content_Type="text/plain", Content_Length=1000))
    assert client.answer().status == 415
    with trickling(client, "x" * 1000):
        assert client.is_closed()


def test_a_client_that_waits_to_send_its_body_is_told_to_go_on(client):
    data = jpeg()
    start = upload(data, Expect="100-continue").removesuffix(data)
    client.send(start)
    assert client.answer().status == 100
    client.send(data)
    assert client.answer().status == 200


@pytest.mark.parametrize(
    ("changes", "status"), [({"Content_Type": "text/plain"}, 415), ({"Content_Length": 10**9}, 413)]
)
def test_a_client_that_is_refused_while_it_waits_must_connect_anew(client, changes, status):
    """It may send its body or its next request: the server cannot know which comes."""
    client.send(upload(b"", Expect="100-continue", **{"Content_Length": 1000} | changes))
    answer = client.answer()
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert client.is_closed()


def test_chunks_that_cannot_be_read_end_the_request_and_no_traceback_is_logged(client, caplog):
    start = head("POST", "/v1/detect", Content_Type="image/jpeg", Transfer_Encoding="chunked")
    client.send(start, "zz\r\n")
    assert client.answer().status == 400
    assert client.is_closed()
    assert "Traceback" not in caplog.text


def test_chunks_that_cannot_be_read_after_the_answer_end_the_connection(client, caplog):
    start = head("POST", "/v1/detect", Content_Type="text/plain", Transfer_Encoding="chunked")
    client.send(start)
    assert client.answer().status == 415
    client.send("zz\r\n")
    assert client.is_closed()
    assert "Traceback" not in caplog.text


# ------------------------------------------------------------------------------------------ room


def test_idle_connections_give_way_to_a_new_one():
    variants, *_ = two_variants()
    with serving(variants, max_connections=3) as live, ExitStack() as crowd:
        for _ in range(10):
            crowd.enter_context(connected(live.port))
        with connected(live.port) as client:
            client.send(head("GET", "/healthz"))
            assert client.answer().status == 200
        assert len(live.server.server_state.connections) <= 3


def test_a_connection_too_many_is_refused_while_all_are_at_work():
    engine = FakeEngine(FP32_RAW)
    with (
        serving(variants_of({"fp32": engine}), max_connections=1) as live,
        connected(live.port) as first,
    ):
        engine.gate.clear()
        first.send(upload(jpeg()))
        assert engine.entered.wait(PATIENCE_S)
        with connected(live.port) as second:
            assert second.answer().status == 503
            assert second.is_closed()
        engine.gate.set()
        assert first.answer().status == 200


@contextmanager
def narrow(live: Live) -> Iterator[tuple[Raw, Callable[[], list[int]]]]:
    """A connection for which the kernel keeps little; how much waits in the server, if it is open.

    It has asked for a large picture.
    """
    with socket.socket() as connection:
        connection.settimeout(PATIENCE_S)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", live.port))
        name = connection.getsockname()

        def transports() -> list[asyncio.Transport]:
            connections = list(live.server.server_state.connections)
            return [each.transport for each in connections if each.client == name]

        wait_until(lambda: bool(transports()))
        theirs = transports()[0].get_extra_info("socket")
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client = Raw(connection)
        client.send(upload(encoded(noise(300, 250), "JPEG"), Accept="image/png"))
        yield client, lambda: [each.get_write_buffer_size() for each in transports()]


def test_a_client_that_does_not_read_its_answer_is_dropped(live):
    with narrow(live) as (_, waiting):
        wait_until(lambda: waiting() > [0])
        wait_until(lambda: waiting() == [])


def test_a_client_that_reads_slowly_is_not_dropped(live):
    with narrow(live) as (client, _):
        end = time.monotonic() + TIMEOUT_S * 4
        while time.monotonic() < end:
            client.receive(2000)
            time.sleep(0.05)
        assert len(client.answer().body) > 200_000
