"""Frigate's two ways to this server, timed alternately: its detectors zmq and deepstack.

    .venv/bin/python bench/frigate.py [MODEL_FOLDER] [--variant int8] [--rounds 300]

A part of a sample photo, as large as the model's input, goes 25 times over ZeroMQ on a Unix
socket and 25 times as a JPEG in a form over HTTP, and so on. As in Frigate, the time of the latter
contains the encoding of the JPEG (Pillow, quality 75); the connection is kept alive. Prints median
milliseconds until the answer is there, and the ratio.
"""

import json
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import zmq
from PIL import Image, ImageOps

from bench.command_line import print_header, print_row, server_parser
from bench.load import MULTIPART, form, post
from bench.overhead import BATCH, Connection
from bench.serving import model_folder, serve
from service.manifest import read_manifest
from service.vision.image import Pixels
from zoo import bundle

PHOTO: Final = bundle.SAMPLES / "street.jpg"
TIMEOUT_MS: Final = 10_000


def main() -> None:
    parser = server_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    with model_folder(arguments.folder) as folder, TemporaryDirectory() as scratch:
        size = read_manifest(folder).size
        with Image.open(PHOTO) as photo:
            frame = np.asarray(ImageOps.fit(photo.convert("RGB"), (size.width, size.height)))
        endpoint = f"ipc://{Path(scratch) / 'zmq'}"
        options = ("--zmq", endpoint, "--ab", f"{arguments.variant}:1")
        quiet = {"QYOLO_LOG_LEVEL": "warning"}
        with serve(folder, *options, environment=quiet) as server, zmq.Context() as context:
            socket = context.socket(zmq.REQ)
            socket.rcvtimeo = TIMEOUT_MS
            socket.connect(endpoint)
            connection = Connection(server.port)
            by_zmq, by_deepstack = medians(
                arguments.rounds,
                lambda: send_tensor(socket, frame),
                lambda: send_jpeg(connection, frame),
            )
            connection.close()
            socket.close(0)
    print_header("zmq p50 ms", "deepstack p50 ms", "deepstack / zmq")
    numbers = (by_zmq, by_deepstack, by_deepstack / by_zmq)
    print_row(*(f"{number:.2f}" for number in numbers))


def medians(rounds: int, *ways: Callable[[], None]) -> list[float]:
    """Milliseconds of each way; the first batches are not counted."""
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(-1, rounds // BATCH):
        for way, times in zip(ways, seconds, strict=True):
            for _ in range(BATCH):
                start = time.perf_counter()
                way()
                if number >= 0:
                    times.append(time.perf_counter() - start)
    return [float(np.median(times)) * 1000 for times in seconds]


def send_tensor(socket: zmq.Socket[bytes], frame: Pixels) -> None:
    head = {"shape": [1, *frame.shape], "dtype": "uint8", "model_type": "yologeneric"}
    socket.send_multipart([json.dumps(head).encode(), frame.tobytes()])
    answer, rows = socket.recv_multipart()
    if "error" in json.loads(answer) or not np.frombuffer(rows, np.float32).any():
        raise SystemExit(answer.decode())


def send_jpeg(connection: Connection, frame: Pixels) -> None:
    encoded = BytesIO()
    Image.fromarray(frame).save(encoded, "JPEG")
    upload = form(encoded.getvalue(), "image", part_headers="Content-Type: image/jpeg\r\n")
    body = connection.send(post("/v1/vision/detection", MULTIPART, upload))
    if not json.loads(body)["predictions"]:
        raise SystemExit(body.decode())


if __name__ == "__main__":
    main()
