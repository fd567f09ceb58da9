"""What HTTP adds to the engine: a server and its engine alone, timed alternately.

    .venv/bin/python bench/overhead.py [MODEL_FOLDER] [--variant int8] [--rounds 300]

One client on one connection posts a JPEG of 640x480 and one of 1920x1080 (an enlarged sample
photo); after 25 responses the same engine infers the same image 25 times in this process, and so
on. Prints median milliseconds; the difference is what decoding, letterbox, NMS, JSON and HTTP cost,
and the last column is the share that the server reports by stage.

The client is a bare socket: Python's http.client would add half a millisecond of its own.
"""

import io
import json
import socket
import time
from collections.abc import Mapping
from typing import Final

import numpy as np
from PIL import Image

from bench.command_line import print_header, print_row, server_parser
from bench.load import content_length, post_jpeg
from bench.serving import model_folder, serve
from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.image import MAX_PIXELS
from zoo import bundle

PHOTO: Final = bundle.SAMPLES / "astronaut.jpg"
SIZES: Final = ((640, 480), (1920, 1080))
QUALITY: Final = 90
BATCH: Final = 25  # images of each in a row: an engine's threads spin after an image
READ: Final = 2**16


def main() -> None:
    parser = server_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    path = f"/v1/models/{arguments.variant}/detect"
    with model_folder(arguments.folder) as folder, serve(folder) as server:
        detector = Detector.load(folder, read_manifest(folder), arguments.variant)
        columns = ("picture", "KiB", "HTTP p50 ms", "engine p50 ms", "HTTP adds")
        print_header(*columns, "of that in the server")
        for width, height in SIZES:
            picture = jpeg((width, height))
            cells = compare(server.port, path, detector, picture, arguments.rounds)
            print_row(f"{width}x{height}", len(picture) // 1024, *cells)
        detector.close()


def jpeg(size: tuple[int, int]) -> bytes:
    """A sample photo, enlarged to what a camera of this size would send."""
    encoded = io.BytesIO()
    with Image.open(PHOTO) as photo:
        photo.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(
            encoded, "JPEG", quality=QUALITY
        )
    return encoded.getvalue()


def compare(
    port: int, path: str, detector: Detector, picture: bytes, rounds: int
) -> tuple[str, ...]:
    """Medians of HTTP and engine, their difference, and the server's stages."""
    request = post_jpeg(path, picture)
    connection = Connection(port)
    prepared = detector.preprocess(detector.decode(picture, MAX_PIXELS))
    http, engine, stages = [], [], []
    for number in range(-1, rounds // BATCH):
        for _ in range(BATCH):
            start = time.perf_counter()
            body = connection.send(request)
            if number >= 0:
                http.append(time.perf_counter() - start)
                stages.append(json.loads(body)["timings_ms"])
        for _ in range(BATCH):
            start = time.perf_counter()
            detector.infer(prepared)
            if number >= 0:
                engine.append(time.perf_counter() - start)
    connection.close()
    http_ms, engine_ms = (float(np.median(times)) * 1000 for times in (http, engine))
    numbers = (http_ms, engine_ms, http_ms - engine_ms)
    return (*(f"{ms:.2f}" for ms in numbers), _medians_of(stages))


class Connection:
    """A blocking connection that is kept alive."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> bytes:
        """The body of the response, which must have status 200."""
        self._socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode())
        length = content_length(head.lower())
        while len(body) < length:
            body += self._receive()
        return body

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        if data := self._socket.recv(READ):
            return data
        raise SystemExit("the server closed the connection")


def _medians_of(timings: list[Mapping[str, float]]) -> str:
    medians = {name: float(np.median([each[name] for each in timings])) for name in timings[0]}
    return ", ".join(
        f"{name} {ms:.2f}" for name, ms in medians.items() if name not in {"infer", "total"}
    )


if __name__ == "__main__":
    main()
