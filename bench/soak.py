"""Tens of thousands of good requests against a real server: does it hold more afterwards?

    .venv/bin/python bench/soak.py [MODEL_FOLDER] [--count 50000]

Without a folder the server has the tests' tiny model, so that the count is reached in minutes: what
leaks is the server's, not the engine's arithmetic. Exit code 1 where a request fails, where memory
after a tenth of the requests is ever left by more than 5 %, or where files or threads grow.
"""

import argparse
import asyncio
import base64
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from hostile_pictures import FORMATS, good
from hostile_requests import MULTIPART, OWN, form, post
from load import Connection, Request
from watched import Held, Watched, tiny_folder, watched

CLIENTS: Final = 4
SAMPLES: Final = 20
FLAT: Final = 0.05
SIDE: Final = 320  # pixels of the longer side


def requests() -> list[Request]:
    """Every photo of the box, in every format and form, to every route of ours."""
    made = []
    for number in range(4):
        for form_ in FORMATS:
            data = good(form_, number, SIDE)
            text = base64.b64encode(data).decode()
            made += [post(path, f"image/{form_.lower()}", data) for path in OWN]
            made.append(post("/v1/detect", MULTIPART, form(data)))
            made.append(
                post("/v1/detect", "application/json", json.dumps({"image": text}).encode())
            )
            made.append(post("/v1/detect", "image/png", data, "Accept: image/jpeg"))
    return [Request(each, b"") for each in made]


async def ask(port: int, sent: list[Request], start: int, count: int) -> int:
    """How many of these many requests failed."""
    turns = iter(range(start, start + count))
    failed = 0

    async def client() -> None:
        nonlocal failed
        connection = Connection(port)
        for turn in turns:
            failed += await connection.send(sent[turn % len(sent)]) != 200
        connection.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return failed


def held(server: Watched) -> Held:
    time.sleep(0.5)  # until the connections are closed on both sides
    return server.held()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: the tests' tiny model")
    parser.add_argument("--count", type=int, default=50_000)
    arguments = parser.parse_args()
    given, step = arguments.folder, arguments.count // SAMPLES
    sent, failed, samples = requests(), 0, []
    settings = {"QYOLO_LOG_LEVEL": "warning", "QYOLO_CAPACITY": CLIENTS}
    began = time.monotonic()
    with (
        tiny_folder() if given is None else nullcontext(given) as folder,
        watched(folder, **settings) as server,
    ):
        print("| requests | MiB | files | threads |")
        print("|---|---|---|---|")
        for number in range(1, SAMPLES + 1):
            failed += asyncio.run(ask(server.port, sent, (number - 1) * step, step))
            samples.append(held(server))
            now = samples[-1]
            print(f"| {number * step} | {now.mib:.1f} | {now.files} | {now.threads} |", flush=True)
    first, *later = samples[SAMPLES // 10 - 1 :]
    most = max(abs(each.mib / first.mib - 1) for each in later)
    print(f"\n{time.monotonic() - began:.0f} s, {CLIENTS} clients, {failed} failed; ")
    print(f"memory left what it was after a tenth by at most {most:.1%}")
    grown = any(each.files > first.files or each.threads > first.threads for each in later)
    return 1 if failed or most > FLAT or grown else 0


if __name__ == "__main__":
    sys.exit(main())
