"""What HTTP adds to the engine: a server and its engine alone, timed in turns.

    .venv/bin/python bench/overhead.py [MODEL_FOLDER] [--variant int8]

One client on one connection posts a JPEG of 640x480 and one of 1920x1080; after some answers the
same engine infers the same picture as often in this process, and so on. The difference of the
medians is what decoding, letterbox, NMS, JSON and HTTP cost. A photo of the box's own, enlarged,
stands for a camera's. The client is a bare socket: Python's http.client would add half a
millisecond of its own.
"""

import argparse
import io
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import load
import numpy as np
import serving
from PIL import Image

from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.image import MOST_PIXELS
from zoo import bundle

PHOTO = bundle.SAMPLES / "astronaut.jpg"
SIZES = ((640, 480), (1920, 1080))
QUALITY = 90
TURN = 25  # of each: threads of an engine spin for a while after an image, and disturb others
READ = 2**16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: the detector in the box")
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    with serving.model_folder(arguments.folder) as folder, serving.server(folder) as port:
        detector = Detector.load(folder, read_manifest(folder), arguments.variant)
        print("| picture | KiB | HTTP p50 ms | engine p50 ms | HTTP adds | of that in the server |")
        print("|---|---|---|---|---|---|")
        for size in SIZES:
            print(row(port, detector, arguments.variant, jpeg(size), size, arguments.rounds))
        detector.close()


def jpeg(size: tuple[int, int]) -> bytes:
    """The photo, enlarged, as a camera of this size would send it."""
    encoded = io.BytesIO()
    with Image.open(PHOTO) as photo:
        photo.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(
            encoded, "JPEG", quality=QUALITY
        )
    return encoded.getvalue()


def row(
    port: int,
    detector: Detector,
    variant: str,
    picture: bytes,
    size: tuple[int, int],
    rounds: int,
) -> str:
    """One line of the table."""
    request = load.Request.raw(f"/v1/models/{variant}/detect", picture)
    connection = Connection(port)
    prepared = detector.preprocess(detector.decode(picture, MOST_PIXELS))
    asked, inferred, stages = [], [], []
    for number in range(-1, rounds // TURN):
        for _ in range(TURN):
            start = time.perf_counter()
            answer = connection.ask(request)
            if number >= 0:
                asked.append(time.perf_counter() - start)
                stages.append(json.loads(answer)["timings_ms"])
        for _ in range(TURN):
            start = time.perf_counter()
            detector.infer(prepared)
            if number >= 0:
                inferred.append(time.perf_counter() - start)
    connection.close()
    http_ms, engine_ms = (float(np.median(times)) * 1000 for times in (asked, inferred))
    return (
        f"| {size[0]}x{size[1]} | {len(picture) // 1024} | {http_ms:.2f} | {engine_ms:.2f} | "
        f"{http_ms - engine_ms:.2f} | {_stages(stages)} |"
    )


class Connection:
    """One that is kept alive."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: load.Request) -> bytes:
        """The body of the answer, which must be a 200."""
        self._socket.sendall(request.head + request.body)
        head, _, body = self._more(b"", b"\r\n\r\n").partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode())
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._socket.recv(READ)
        return body

    def close(self) -> None:
        self._socket.close()

    def _more(self, seen: bytes, end: bytes) -> bytes:
        while end not in seen:
            got = self._socket.recv(READ)
            if not got:
                raise SystemExit("the server hung up")
            seen += got
        return seen


def _stages(timings: list[Mapping[str, float]]) -> str:
    medians = {name: float(np.median([each[name] for each in timings])) for name in timings[0]}
    return ", ".join(
        f"{name} {ms:.2f}" for name, ms in medians.items() if name not in {"infer", "total"}
    )


if __name__ == "__main__":
    main()
