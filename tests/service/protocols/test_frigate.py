"""Frigate's zmq detector over a real socket, with a client that does what its plugin does."""

import io
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from PIL import Image

from service.lifecycle import FolderSource
from service.progress import Progress
from service.settings import Settings
from tests.fakes import FakeEngine, HeldSource, variants_of, yolov5_raw
from tests.service.live import DOG, PERSON, Live, post, sample, samples, serving, two_variants
from tests.service.pictures import encoded, gradient
from tests.service.tiny import SIZE, write_model_folder
from tests.waiting import WAIT_LIMIT_S, wait_until

NOTHING = np.zeros((20, 6), np.float32)


class Client:
    """One REQ socket, which fails in any other order than request, answer, request, ..."""

    def __init__(self, endpoint: str, timeout_s: float = WAIT_LIMIT_S) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.rcvtimeo = round(timeout_s * 1000)
        self._socket.linger = 0
        self._socket.connect(endpoint)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.destroy(linger=0)

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def receive(self) -> list[bytes]:
        return self._socket.recv_multipart()

    def ask(self, *frames: bytes) -> tuple[np.ndarray, str | None]:
        """The rows of the answer, as the plugin reads them, and its error."""
        self.send(*frames)
        head, content = self.receive()
        header = json.loads(head)
        rows = np.frombuffer(content, header["dtype"]).reshape(header["shape"])
        assert (rows.shape, rows.dtype) == ((20, 6), np.float32)
        return rows, header.get("error")

    def detect(self, tensor: np.ndarray) -> np.ndarray:
        rows, error = self.ask(head(tensor), tensor.tobytes())
        assert error is None
        return rows


def head(tensor: np.ndarray, **changes: object) -> bytes:
    fields = {"shape": tensor.shape, "dtype": tensor.dtype.name, "model_type": "yologeneric"}
    return json.dumps(fields | changes).encode()


@contextmanager
def listening(folder: Path, *args: object, **options: object) -> Iterator[tuple[Live, str]]:
    endpoint = f"ipc://{folder}/zmq"
    with serving(*args, zmq=endpoint, **options) as live:
        yield live, endpoint


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server whose boxes are known."""
    with listening(tmp_path_factory.mktemp("frigate"), max_bytes=200_000) as (live, endpoint):
        yield live, endpoint


@pytest.fixture
def client(shared):
    with Client(shared[1]) as client:
        yield client


@pytest.fixture
def image() -> np.ndarray:
    return np.asarray(gradient(SIZE, SIZE))[None]


def test_the_boxes_are_those_of_http(image, tmp_path):
    write_model_folder(tmp_path / "model")
    with listening(tmp_path, source=FolderSource(tmp_path / "model")) as (live, endpoint):
        wait_until(lambda: live.client.get("/readyz").status_code == 200)
        answer = post(live.client, encoded(gradient(SIZE, SIZE), "PNG"), "/v1/detect?conf=0.4")
        with Client(endpoint) as client:
            rows = client.detect(image)
    found = answer.json()["detections"]
    assert found
    for row, box in zip(rows, found, strict=False):
        left, top, right, bottom = (side / SIZE for side in box["box"])
        expected = [box["class_id"], box["score"], top, left, bottom, right]
        np.testing.assert_allclose(row, expected, atol=1e-3)  # HTTP rounds
    assert not rows[len(found) :].any()


def test_an_image_reaches_the_engine_unchanged_in_each_form(image, tmp_path):
    variants, _, int8 = two_variants()
    planes = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
    forms = [image, planes, image / np.float32(255), planes / np.float32(255)]
    with listening(tmp_path, variants) as (_, endpoint), Client(endpoint) as client:
        for tensor in forms:
            int8.image = None
            client.detect(tensor)
            np.testing.assert_array_equal(int8.image, image)


def test_rows_are_class_score_and_fractions_of_the_image_best_first(client, image):
    rows = client.detect(image)
    # A person of 15.2x8 and a traffic light of 8x8 in 64x64, around (32, 32) and (50, 40).
    np.testing.assert_allclose(
        rows[:2] * [1, 1, 64, 64, 64, 64],
        [[0, 0.85, 28, 24.4, 36, 39.6], [1, 0.5, 36, 46, 44, 54]],
        rtol=1e-5,
    )
    assert not rows[2:].any()


def test_there_are_20_boxes_at_most_none_below_0_4(image, tmp_path):
    boxes = [(32.0, 2.0 * row, 8.0, 1.0, 0.99 - row / 100, row % 3) for row in range(32)]
    engine = FakeEngine(yolov5_raw(boxes))
    with (
        listening(tmp_path, variants_of({"int8": engine}), conf=0.1) as (_, endpoint),
        Client(endpoint) as client,
    ):
        scores = client.detect(image)[:, 1]
        assert len(scores) == 20
        assert list(scores) == sorted(scores, reverse=True)
        engine.raw = yolov5_raw([(32.0, 32.0, 8.0, 8.0, 0.39, 0)])
        assert not client.detect(image).any()


def test_frigate_is_told_that_the_model_is_loaded(client):
    client.send(b'{"model_request": true, "model_name": "yolo.onnx"}')
    (answer,) = client.receive()
    assert json.loads(answer) == {"model_available": True, "model_loaded": True}
    client.send(b'{"model_data": true, "model_name": "yolo.onnx"}', bytes(1000))
    (answer,) = client.receive()
    assert json.loads(answer) == {"model_saved": False, "model_loaded": True}


BYTES = np.zeros((1, SIZE, SIZE, 3), np.uint8)
FLOATS = BYTES.astype(np.float32)
UNUSABLE = {
    "an empty request": ([b""], "header"),
    "no JSON": ([b"hello", BYTES.tobytes()], "JSON"),
    "another JSON": ([b"[]", BYTES.tobytes()], "object"),
    "a deep JSON": ([b"[" * 4000, BYTES.tobytes()], "JSON"),
    "a long header": ([b" " * 5000, BYTES.tobytes()], "4096"),
    "no tensor": ([head(BYTES)], "1 frames"),
    "two tensors": ([head(BYTES), BYTES.tobytes(), BYTES.tobytes()], "3 frames"),
    "another size": (
        [head(BYTES, shape=(1, 32, 32, 3)), bytes(3072)],
        "width to 64 and height to 64",
    ),
    "no batch": ([head(BYTES, shape=(64, 64, 3)), BYTES.tobytes()], "width to 64 and height to 64"),
    "no shape": ([b"{}", BYTES.tobytes()], "width to 64 and height to 64"),
    "a negative shape": ([head(BYTES, shape=(1, -64, -64, 3)), BYTES.tobytes()], "shape.1"),
    "half a tensor": ([head(BYTES), BYTES.tobytes()[:-1]], "12287 bytes, not 12288"),
    "another dtype": ([head(BYTES, dtype="float64"), bytes(8 * 12288)], "input_dtype"),
    "an object": ([head(BYTES, dtype="object"), bytes(8 * 12288)], "input_dtype"),
    "a wrong dtype": ([head(BYTES, dtype="float32"), BYTES.tobytes()], "not 49152"),
    "floats up to 255": ([head(FLOATS), (FLOATS + 255).tobytes()], "input_dtype"),
    "not a number": ([head(FLOATS), (FLOATS * np.nan).tobytes()], "input_dtype"),
}


@pytest.mark.parametrize(("frames", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_request_is_answered_with_zeros_and_a_reason(client, image, frames, words):
    rows, error = client.ask(*frames)
    np.testing.assert_array_equal(rows, NOTHING)
    assert words in error
    assert client.detect(image)[0, 1] > 0.8


def test_of_a_reason_that_stays_the_same_one_line_is_logged(client, image, caplog):
    client.detect(image)
    for _ in range(3):
        client.ask(head(image, shape=[1, 32, 32, 3]), bytes(3072))
    client.detect(image)
    (line,) = [each for each in caplog.messages if "no boxes" in each]
    assert "[1, 32, 32, 3]" in line
    assert "set width to 64 and height to 64" in line


def test_requests_and_their_stages_are_counted(shared, client, image):
    live, _ = shared

    def counts() -> tuple[float, ...]:
        found = samples(live.client)
        stages = {"variant": "int8", "device": "cpu", "stage": "infer"}
        return (
            sample(found, "qyolo_zmq_requests_total", status="200"),
            sample(found, "qyolo_zmq_requests_total", status="400"),
            sample(found, "qyolo_stage_duration_seconds_count", **stages),
        )

    before = counts()
    client.detect(image)
    client.ask(b"{}")
    client.detect(image)
    wait_until(lambda: np.subtract(counts(), before).tolist() == [2, 1, 2])
    assert sample(samples(live.client), "qyolo_requests_in_flight") == 1  # this request itself


def test_a_frame_that_is_too_large_ends_its_connection_only(shared, client, image):
    with Client(shared[1], timeout_s=0.2) as large:
        large.send(head(image), bytes(200_001))
        with pytest.raises(zmq.Again):
            large.receive()
    assert client.detect(image).any()


@pytest.mark.parametrize("frames", [[b""], [b"x"], [b"x", b"", b"y"], [b"", b""]], ids=repr)
def test_peers_that_are_no_req_socket_do_no_harm(shared, client, image, frames):
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.connect(shared[1])
        peer.send_multipart(frames)
        assert client.detect(image).any()
        peer.linger = 0


def test_an_engine_that_fails_gives_zeros_and_hides_why(image, tmp_path):
    variants, _, int8 = two_variants()
    int8.failure = RuntimeError("in /secret/path")
    with listening(tmp_path, variants) as (_, endpoint), Client(endpoint) as client:
        rows, error = client.ask(head(image), image.tobytes())
        assert not rows.any()
        assert error == "Internal error"
        int8.failure = None
        assert client.detect(image).any()


def test_a_broken_variant_is_replaced_by_another(image, tmp_path):
    """As for HTTP requests: supervision, and the choice of a variant, are the same."""
    variants, _, int8 = two_variants()
    int8.failure = RuntimeError("broken")
    with listening(tmp_path, variants) as (live, endpoint), Client(endpoint) as client:
        wait_until(lambda: client.ask(head(image), image.tobytes())[1] is None)
        np.testing.assert_allclose(client.detect(image)[:2, 1], [PERSON["score"], DOG["score"]])
        assert sample(samples(live.client), "qyolo_engine_failures_total", reason="error") >= 3


def test_admission_counts_its_requests_with_those_of_http(image, tmp_path):
    variants, _, int8 = two_variants()
    with (
        listening(tmp_path, variants, capacity=1) as (live, endpoint),
        Client(endpoint) as first,
        Client(endpoint) as second,
    ):
        int8.gate.clear()
        first.send(head(image), image.tobytes())
        assert int8.entered.wait(WAIT_LIMIT_S)
        rows, error = second.ask(head(image), image.tobytes())
        assert not rows.any()
        assert "1 requests are in progress" in error
        assert post(live.client, encoded(gradient(64, 64), "JPEG")).status_code == 429
        int8.gate.set()
        assert len(first.receive()) == 2
        assert second.detect(image).any()


def test_the_deadline_ends_a_request(image, tmp_path):
    variants, _, int8 = two_variants()
    with (
        listening(tmp_path, variants, deadline_s=0.2) as (_, endpoint),
        Client(endpoint) as client,
    ):
        int8.gate.clear()
        rows, error = client.ask(head(image), image.tobytes())
        assert not rows.any()
        assert error == "Deadline exceeded"
        int8.gate.set()


def test_clients_that_die_leave_nothing(image, tmp_path):
    variants, _, int8 = two_variants()
    with listening(tmp_path, variants) as (live, endpoint), Client(endpoint) as survivor:
        survivor.detect(image)
        files = len(list(Path("/proc/self/fd").iterdir()))
        int8.gate.clear()
        for _ in range(5):
            with Client(endpoint) as dead:
                dead.send(head(image), image.tobytes())
                assert int8.entered.wait(WAIT_LIMIT_S)
        int8.gate.set()
        assert survivor.detect(image).any()

        def in_flight() -> float:
            return sample(samples(live.client), "qyolo_requests_in_flight")

        wait_until(lambda: in_flight() == 1)
        wait_until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= files)


def test_while_the_server_loads_frigate_gets_zeros(image, tmp_path):
    held = HeldSource(Progress("quantizing"))
    with listening(tmp_path, source=held) as (_, endpoint), Client(endpoint) as client:
        client.send(b'{"model_request": true, "model_name": "yolo.onnx"}')
        assert json.loads(client.receive()[0])["model_loaded"]
        rows, error = client.ask(head(image), image.tobytes())
        assert not rows.any()
        assert error == "Not ready"


def test_a_stop_answers_what_is_in_progress_and_a_new_server_the_same_client(image, tmp_path):
    variants, _, int8 = two_variants()
    threads = threading.active_count()
    with (
        ThreadPoolExecutor(1) as pool,
        Client(f"ipc://{tmp_path}/zmq") as client,
    ):
        with listening(tmp_path, variants) as (live, _):
            int8.gate.clear()
            client.send(head(image), image.tobytes())
            assert int8.entered.wait(WAIT_LIMIT_S)
            exit_ = pool.submit(live.exit)
            wait_until(lambda: live.server.should_exit)
            int8.gate.set()
            assert np.frombuffer(client.receive()[1], np.float32).any()
            exit_.result()
            assert int8.closed
        with listening(tmp_path):
            assert client.detect(image).any()
    wait_until(lambda: threading.active_count() <= threads)


def test_a_stop_does_not_wait_for_more_than_the_drain(image, tmp_path):
    variants, _, int8 = two_variants()
    with listening(tmp_path, variants, drain_s=1) as (live, endpoint), Client(endpoint) as client:
        int8.gate.clear()
        client.send(head(image), image.tobytes())
        assert int8.entered.wait(WAIT_LIMIT_S)
        live.exit()
        int8.gate.set()


def test_frames_are_collected_like_other_images(image, tmp_path):
    kept = tmp_path / "kept"
    with listening(tmp_path, collect=kept) as (_, endpoint), Client(endpoint) as client:
        client.detect(image)
    (file,) = kept.iterdir()
    with Image.open(io.BytesIO(file.read_bytes())) as picture:
        assert picture.size == (SIZE, SIZE)


UNREACHABLE = {
    "ipc:///no/such/folder/zmq": "cannot listen on ipc:///no/such/folder/zmq: No such file",
    "tcp://no-such-device:5555": "cannot listen on tcp://no-such-device:5555",
    "tcp://*:*": "others can reach",
    "tcp://0.0.0.0:*": "others can reach",
}


@pytest.mark.parametrize(("endpoint", "words"), UNREACHABLE.items())
def test_an_endpoint_that_cannot_be_used_ends_the_server_with_the_reason(endpoint, words):
    with serving(zmq=endpoint) as live:
        (failure,) = live.failures
        assert words in failure


def test_an_address_of_this_machine_or_with_insecure_is_used():
    everyone = {"zmq": "tcp://*:*"}
    for options in (
        {"zmq": "tcp://127.0.0.1:*"},
        everyone | {"insecure": True},
        everyone | {"published": "127.0.0.1"},
    ):
        with serving(**options) as live:
            assert live.failures == []


def test_pyzmq_is_needed_only_with_an_endpoint(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "zmq", None)
    monkeypatch.delitem(sys.modules, "service.protocols.frigate", raising=False)
    with serving() as live:
        assert live.failures == []
    with serving(zmq=f"ipc://{tmp_path}/zmq") as live:
        (failure,) = live.failures
        assert "qyolo[frigate]" in failure


@pytest.mark.parametrize("endpoint", ["", "inproc://x", "/tmp/zmq", "tcp://"])
def test_other_endpoints_are_no_setting(endpoint):
    with pytest.raises(ValueError, match="zmq"):
        Settings(zmq=endpoint)
