"""Tens of thousands of good requests against a real server: do memory, files or threads grow?

    .venv/bin/python bench/robustness/soak.py [MODEL_FOLDER] [--count 50000]

4 connections send the sample photos in four formats to the detection routes; the default model is
qyolo-nano at 64x64, so that the count is reached in minutes. Prints MiB of resident memory, open
files and threads of the server after each twentieth of the requests.

Exits with 1 if a request fails, if memory after the first tenth ever changes by more than 5 %, or
if files or threads grow.
"""

import asyncio
import base64
import json
import sys
import time
from typing import Final

from bench.command_line import folder_parser, print_header, print_row
from bench.load import MULTIPART, Connection, form, post
from bench.robustness.hostile_images import FORMATS, valid
from bench.robustness.hostile_requests import DETECT_PATHS
from bench.serving import serve, tiny_folder

CLIENTS: Final = 4
SAMPLES: Final = 20
FLAT: Final = 0.05
SIDE: Final = 320  # pixels of the longer side


def requests() -> list[bytes]:
    """Every sample photo, in every format and encoding of a body, to every route."""
    bodies = []
    for number in range(4):
        for picture_format in FORMATS:
            data = valid(picture_format, number, SIDE)
            body = json.dumps({"image": base64.b64encode(data).decode()}).encode()
            bodies += [
                *(post(path, f"image/{picture_format.lower()}", data) for path in DETECT_PATHS),
                post("/v1/detect", MULTIPART, form(data)),
                post("/v1/detect", "application/json", body),
                post("/v1/detect", "image/png", data, "Accept: image/jpeg"),
            ]
    return bodies


async def send(port: int, sent: list[bytes], start: int, count: int) -> int:
    """The number of `count` requests that failed."""
    numbers = iter(range(start, start + count))
    failed = 0

    async def client() -> None:
        nonlocal failed
        connection = Connection(port)
        for number in numbers:
            failed += await connection.send(sent[number % len(sent)]) != 200
        connection.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return failed


def main() -> int:
    parser = folder_parser(__doc__, "qyolo-nano at 64x64")
    parser.add_argument("--count", type=int, default=50_000)
    arguments = parser.parse_args()
    step = arguments.count // SAMPLES
    sent, failed, samples = requests(), 0, []
    settings = {"QYOLO_LOG_LEVEL": "warning", "QYOLO_CAPACITY": CLIENTS}
    began = time.monotonic()
    with tiny_folder(arguments.folder) as folder, serve(folder, environment=settings) as server:
        print_header("requests", "MiB", "files", "threads")
        for number in range(SAMPLES):
            failed += asyncio.run(send(server.port, sent, number * step, step))
            time.sleep(0.5)  # until the connections are closed on both sides
            samples.append(server.resources())
            now = samples[-1]
            print_row((number + 1) * step, f"{now.mib:.1f}", now.files, now.threads)
    first, *later = samples[SAMPLES // 10 - 1 :]
    most = max(abs(each.mib / first.mib - 1) for each in later)
    print(f"\n{time.monotonic() - began:.0f} s, {CLIENTS} clients, {failed} failed")
    print(f"memory changed by at most {most:.1%} after the first tenth")
    grown = any(each.files > first.files or each.threads > first.threads for each in later)
    return 1 if failed or most > FLAT or grown else 0


if __name__ == "__main__":
    sys.exit(main())
