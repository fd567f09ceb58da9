"""Seconds from `qyolo up` to ready and to the first boxes: a first start and five later ones.

    .venv/bin/python bench/start.py [MODEL] [--calibration DIR]

Ready is the first 200 of /readyz; the first boxes are the response to one photo after that. The
first start finds an empty cache and builds, the later ones find the built model in it.
"""

import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.command_line import parser_of
from bench.serving import running
from zoo import bundle

PHOTO: Final = bundle.SAMPLES / "astronaut.jpg"
LATER: Final = 5  # starts that find the cache filled


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("model", nargs="?", default=bundle.NAME)
    parser.add_argument("--calibration", type=Path)
    arguments = parser.parse_args()
    command = ["up", arguments.model]
    if arguments.calibration:
        command += ["--calibration", str(arguments.calibration)]
    with TemporaryDirectory() as cache:
        for number in range(1 + LATER):
            ready_s, boxes_s = start(command, cache)
            name = "later start" if number else "first start"
            print(f"{name}: ready after {ready_s:.2f} s, first boxes after {boxes_s:.2f} s")


def start(command: list[str], cache: str) -> tuple[float, float]:
    """Seconds until the server is ready, and until it has found the boxes of one photo."""
    begun = time.perf_counter()
    with running(*command, environment={"QYOLO_CACHE_DIR": cache}) as server:
        ready_s = time.perf_counter() - begun
        photo = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/v1/detect",
            PHOTO.read_bytes(),
            {"Content-Type": "image/jpeg"},
        )
        with urllib.request.urlopen(photo) as response:
            response.read()
        return ready_s, time.perf_counter() - begun


if __name__ == "__main__":
    main()
