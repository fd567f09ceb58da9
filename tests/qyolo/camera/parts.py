"""A camera that sends MJPEG over HTTP, a video file, a broker, and a client of it."""

import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from qyolo.camera.config import WatchConfig
from qyolo.camera.watch import watch_until
from tests.service.pictures import encoded, gradient
from tests.waiting import WAIT_LIMIT_S, wait_until

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
needs_broker = pytest.mark.skipif(
    MOSQUITTO is None, reason="Mosquitto is not installed: apt-get install mosquitto"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def write_video(
    path: Path,
    frames: int,
    size: tuple[int, int] = (200, 100),
    pixels: np.ndarray | None = None,
) -> Path:
    """20 frames a second: of the given pixels, else grey, from black to white."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            grey = np.full((size[1], size[0], 3), 255 * index // max(1, frames - 1), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey if pixels is None else pixels, "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        jpeg = encoded(gradient(200, 100), "JPEG")
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        try:
            while not self.server.is_off.is_set():
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                self.server.is_off.wait(0.05)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def camera(port: int = 0) -> Iterator[str]:
    """The URL of a camera that sends frames of 200x100 until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", port), _Handler) as server:
        server.is_off = threading.Event()
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            account = "user:secret"
            yield f"http://{account}@127.0.0.1:{server.server_port}/video?token=secret"
        finally:
            server.is_off.set()
            server.shutdown()
            thread.join()


class Broker:
    """A Mosquitto, which keeps nothing when it is killed, and what a subscriber gets from it."""

    def __init__(self, folder: Path) -> None:
        self._config = folder / "mosquitto.conf"
        self.port = free_port()
        self.url = f"mqtt://camera@127.0.0.1:{self.port}"
        passwords = folder / "passwords"
        passwd = Path(MOSQUITTO).parent.parent / "bin/mosquitto_passwd"
        create = [str(passwd), "-b", "-c", str(passwords), "camera", "a secret"]
        subprocess.run(create, check=True, capture_output=True)
        passwords.chmod(0o644)
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\npassword_file {passwords}\nuser root\n"
        )
        self._process: subprocess.Popen | None = None
        self.topics: dict[str, str] = {}
        self.retained: set[str] = set()
        self.events: list[dict] = []
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.username_pw_set("camera", "a secret")
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_message = lambda client, userdata, message: self._receive(message)

    def start(self) -> None:
        self.topics, self.retained = {}, set()
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(listens)
        if not self._client.is_connected():
            self._client.connect("127.0.0.1", self.port)
            self._client.loop_start()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        if self._process.poll() is None:
            self.kill()

    def _receive(self, message: object) -> None:
        text = message.payload.decode()
        if message.topic.endswith("/events"):
            self.events.append(json.loads(text))
        else:
            self.topics[message.topic] = text

    def wait_for(self, **expected: str) -> None:
        """Until topics below qyolo/door have these values; `__` stands for a slash."""
        wanted = {f"qyolo/door/{name.replace('__', '/')}": text for name, text in expected.items()}

        def arrived() -> bool:
            return all(self.topics.get(topic) == text for topic, text in wanted.items())

        try:
            wait_until(arrived)
        except AssertionError:
            raise AssertionError({topic: self.topics.get(topic) for topic in wanted}) from None


@contextmanager
def watching(source: object, port: int, **options: object) -> Iterator[threading.Thread]:
    """Watch in a thread until the block ends, and check that it ends without an error."""
    fields = {"fps": 30, "cooldown": 1, "name": "door", "conf": 0.4}
    server = f"http://127.0.0.1:{port}"
    config = WatchConfig.model_validate(
        {"source": str(source), "server": server} | fields | options
    )
    failures: list[BaseException] = []
    stop = threading.Event()

    def run() -> None:
        try:
            watch_until(stop, config)
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(WAIT_LIMIT_S)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def jpegs_of(content: bytes) -> list[bytes]:
    """The JPEGs of a multipart body."""
    found = re.split(rb"--frame\r\n", content)
    return [part.partition(b"\r\n\r\n")[2] for part in found if b"image/jpeg" in part]
