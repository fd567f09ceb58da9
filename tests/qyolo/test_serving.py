"""`qyolo serve` and `qyolo up` as processes: output, answers, libraries, signals."""

import gzip
import http.client
import json
import math
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.manifest import read_manifest
from tests import plain_http
from tests.processes import run_python
from tests.qyolo.commands import (
    WAIT_LIMIT_S,
    Running,
    gone,
    inline,
    qyolo,
    running,
    running_command,
    wait_for,
)


def mapped(server: Running) -> set[str]:
    """The packages whose libraries are in the process."""
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    parts = [line.split("/site-packages/", 1) for line in maps.splitlines()]
    return {part[1].split("/", 1)[0] for part in parts if len(part) == 2}


def only_line(text: str) -> str:
    """The line that the command itself prints."""
    (line,) = (each for each in text.splitlines() if each.startswith("qyolo: "))
    return line


# -------------------------------------------------------------------------------------- serve


def test_serve_listens_answers_and_ends_with_zero(tiny_folder, image):
    with running("serve", QYOLO_MODELS=f"{tiny_folder},boats={tiny_folder}") as server:
        port = int(server.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=5):  # as soon as it is printed
            pass
        server.wait_until_ready()
        assert server.get("/healthz").status_code == 200
        answer = server.detect(image, "?conf=0.05&model=boats")
        assert answer["model"] == "boats"
        answer = server.detect(image, "?conf=0.05")
        assert answer["variant"] == "int8"
        assert answer["detections"]
        assert "openvino" in mapped(server)
        assert not {"onnx", "onnxruntime", "pycocotools"} & mapped(server)
        assert server.stop() == 0
    assert "Traceback" not in server.err


def test_the_command_line_overrides_the_port_of_the_environment(tiny_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = qyolo("serve", tiny_folder, QYOLO_PORT=port)
        assert ran.code == 2
        assert f"cannot listen on 127.0.0.1:{port}" in only_line(ran.err)
        assert "Traceback" not in ran.err
        with running("serve", tiny_folder, QYOLO_PORT=port) as server:  # passes --port 0
            assert not server.url.endswith(str(port))
            server.wait_until_ready()
            assert server.stop(signal.SIGINT) == 0
        assert "Traceback" not in server.err


def test_an_endpoint_of_frigate_that_cannot_be_opened_ends_the_command(tiny_folder):
    ran = qyolo("serve", tiny_folder, "--port", 0, "--zmq", "ipc:///no/such/folder/zmq")
    assert ran.code == 2
    assert "cannot listen on ipc:///no/such/folder/zmq: No such file" in only_line(ran.err)
    assert "Traceback" not in ran.err


# ----------------------------------------------------------------------------- in production


def keep_asking(server: Running, image: bytes) -> list[tuple[float, int | None]]:
    """Send requests on one connection until it gives no more answers.

    Returns when each was sent, and its status: None if the connection ended without an answer.
    """
    sent: list[tuple[float, int | None]] = []
    address = server.url.removeprefix("http://")
    with closing(http.client.HTTPConnection(address, timeout=WAIT_LIMIT_S)) as connection:
        while True:
            at = math.inf  # not sent yet
            try:
                connection.request("POST", "/v1/detect", image, {"Content-Type": "image/jpeg"})
                at = time.monotonic()
                answer = connection.getresponse()
                answer.read()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                return [*sent, (at, None)]
            sent.append((at, answer.status))
            if answer.getheader("connection") == "close":
                return sent


def test_a_termination_under_load_answers_earlier_requests(tiny_folder, image):
    limits = {"QYOLO_DRAIN_S": 20, "QYOLO_CAPACITY": 32}
    with running("serve", tiny_folder, **limits) as server, ThreadPoolExecutor(8) as pool:
        server.wait_until_ready()
        clients = [pool.submit(keep_asking, server, image) for _ in range(8)]
        time.sleep(0.5)
        stopped = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - stopped < 10
        histories = [client.result() for client in clients]
        with pytest.raises(httpx.ConnectError):
            server.get("/healthz")
    before = [status for history in histories for at, status in history if at < stopped]
    assert len(before) > 8
    assert set(before) == {200}
    assert "Traceback" not in server.err


def failing(how: str, **settings: object) -> AbstractContextManager[Running]:
    return running_command("-m", "tests.qyolo.failing_server", how, QYOLO_PORT=0, **settings)


@pytest.mark.parametrize("is_asked_for", [True, False], ids=["in a request", "abandoned"])
def test_a_termination_ends_a_process_whose_engine_hangs(image, is_asked_for):
    """Within the drain and two seconds: no thread of the engine keeps the process."""
    deadline = 30 if is_asked_for else 0.2
    limits = {"QYOLO_DRAIN_S": 1, "QYOLO_DEADLINE_S": deadline}
    with failing("hang", **limits) as server, ThreadPoolExecutor(1) as pool:
        server.wait_until_ready()
        headers = {"Content-Type": "image/jpeg"}
        url = f"{server.url}/v1/detect"
        request = pool.submit(plain_http.post, url, content=image, headers=headers, timeout=30)
        if is_asked_for:
            time.sleep(0.5)
        else:
            assert request.result().status_code == 504
        stopped = time.monotonic()
        assert server.stop() != 0
        assert time.monotonic() - stopped < 1 + 2
        request.exception()
    assert "an engine still runs" in server.err


def test_a_process_whose_engine_cannot_be_recovered_ends_by_itself(image):
    with failing("raise", QYOLO_DRAIN_S=1) as server:
        server.wait_until_ready()
        statuses = []
        for _ in range(4):
            headers = {"Content-Type": "image/jpeg"}
            answer = plain_http.post(f"{server.url}/v1/detect", content=image, headers=headers)
            statuses.append(answer.status_code)
        assert statuses == [500, 500, 500, 503]
        assert server.get("/readyz").status_code == 503
        assert server.process.wait(10) == 2
    assert "no variant can be recovered: fp32 failed" in server.err


def test_others_reach_a_server_only_with_keys_or_if_it_is_insecure(tiny_folder):
    refused = qyolo("serve", tiny_folder, "--host", "0.0.0.0", "--port", 0)
    assert refused.code == 2
    assert "QYOLO_API_KEYS" in only_line(refused.err)
    assert "--insecure" in refused.err
    refused = qyolo("serve", tiny_folder, "--port", 0, QYOLO_API_KEYS="short")
    assert refused.code == 2
    assert "API key 1" in only_line(refused.err)
    assert "short" not in refused.err
    with running("serve", tiny_folder, "--insecure", QYOLO_HOST="0.0.0.0") as server:
        assert server.get("/metrics").status_code == 200
        assert "has no API keys" in server.err
    key = "a-key-of-the-camera"
    with running("serve", tiny_folder, QYOLO_HOST="0.0.0.0", QYOLO_API_KEYS=key) as server:
        assert server.get("/healthz").status_code == 200
        assert server.get("/metrics").status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert plain_http.get(f"{server.url}/metrics", headers=headers).status_code == 200
        assert key not in server.err


class Collector(BaseHTTPRequestHandler):
    """Receives traces over OTLP."""

    received: ClassVar[list[ExportTraceServiceRequest]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_json_logs_and_traces_reach_their_collectors(tiny_folder, image):
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector,
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(collector.serve_forever)
        address = f"http://127.0.0.1:{collector.server_port}"
        settings = {"QYOLO_LOG_FORMAT": "json", "OTEL_EXPORTER_OTLP_ENDPOINT": address}
        with running("serve", tiny_folder, **settings) as server:
            server.wait_until_ready()
            server.detect(image)
            assert server.stop() == 0
        collector.shutdown()
    lines = [json.loads(line) for line in server.lines]
    (line,) = (each for each in lines if each.get("route") == "/v1/detect")
    (batch,) = (spans for each in Collector.received for spans in each.resource_spans)
    names = {each.key: each.value.string_value for each in batch.resource.attributes}
    assert names["service.name"] == "qyolo"
    spans = [span for scope in batch.scope_spans for span in scope.spans]
    assert {"POST /v1/detect", "decode", "infer"} <= {span.name for span in spans}
    assert {span.trace_id.hex() for span in spans} == {line["trace_id"]}


def test_the_sdk_is_not_loaded_without_traces():
    code = "import sys, qyolo.serving; print([m for m in sys.modules if 'opentelemetry.sdk' in m])"
    assert run_python(code) == "[]\n"


# ----------------------------------------------------------------------------------------- up


def test_up_answers_probes_while_it_builds_and_images_when_it_has_built(
    tiny_build, image, tmp_path
):
    built = (*tiny_build, "--runtime", "openvino")
    with running("up", *built, QYOLO_CACHE_DIR=tmp_path) as server:
        headers = {"Content-Type": "image/jpeg"}
        url = f"{server.url}/v1/detect"
        early = plain_http.post(url, content=image, headers=headers, timeout=30)
        assert early.status_code == 503
        assert int(early.headers["Retry-After"]) > 0
        assert early.headers["content-type"] == "application/problem+json"
        states, phases = [], set()

        def ready() -> bool:
            assert server.get("/healthz").status_code == 200
            answer = server.get("/readyz")
            states.append((answer.status_code, answer.json()["status"]))
            phases.add(answer.json()["phase"])
            return answer.status_code == 200

        wait_for(ready)
        assert states[0] == (503, "building")
        assert states[-1] == (200, "ready")
        assert phases & {"read", "calibrate", "ranges", "compile", "compare"}
        assert server.builds() == []
        assert server.detect(image)["model"] == "yolov5"
        assert not {"onnx", "onnxruntime", "pycocotools"} & mapped(server)
        assert server.stop() == 0
    (entry,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert read_manifest(entry).name == "yolov5"
    assert "Traceback" not in server.err


def test_a_termination_while_it_builds_ends_both_processes_with_zero(tiny_build, tmp_path):
    with running("up", *tiny_build, QYOLO_CACHE_DIR=tmp_path) as server:
        wait_for(lambda: server.get("/readyz").json()["status"] == "building")
        wait_for(lambda: bool(server.builds()))
        builds = server.builds()
        assert server.stop() == 0
        wait_for(lambda: all(map(gone, builds)))
    assert "Traceback" not in server.err
    assert [path for path in tmp_path.iterdir() if len(path.name) == 24] == []
    after = inline("build", *tiny_build, QYOLO_CACHE_DIR=tmp_path)
    assert after.code == 0, after.err


def test_an_error_of_the_build_process_is_one_line_and_exit_code_two(tiny_build, tmp_path):
    ran = qyolo("up", *tiny_build, "--size", 65, "--port", 0, QYOLO_CACHE_DIR=tmp_path)
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert "--size 65: YOLOs take multiples of 32" in only_line(ran.err)
