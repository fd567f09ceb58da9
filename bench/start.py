"""From `qyolo up` to ready and to the first boxes: the first start, which builds, and later ones.

.venv/bin/python bench/start.py [MODEL] [--calibration DIR]
"""

import argparse
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo import bundle

PHOTO = bundle.SAMPLES / "astronaut.jpg"
POLL_S = 0.01
LATER = 5  # starts that find the cache filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=bundle.NAME)
    parser.add_argument("--calibration", type=Path)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "qyolo", "up", arguments.model, "--port", "0"]
    if arguments.calibration:
        command += ["--calibration", str(arguments.calibration)]
    with TemporaryDirectory() as cache:
        starts = [start(command, cache) for _ in range(1 + LATER)]
    for number, (ready_s, boxes_s) in enumerate(starts):
        name = "first start" if number == 0 else "later start"
        print(f"{name}: ready after {ready_s:.2f} s, first boxes after {boxes_s:.2f} s")


def start(command: list[str], cache: str) -> tuple[float, float]:
    """Start a server on a free port; seconds until it is ready, and has answered one photo."""
    begun = time.perf_counter()
    server = subprocess.Popen(
        command, env=os.environ | {"QYOLO_CACHE_DIR": cache}, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        told = next((line for line in server.stderr if "listens on" in line), None)
        if told is None:
            raise SystemExit("the server did not start")
        url = re.findall(r"http://\S+", told)[0]
        while not ready(f"{url}/readyz"):
            if server.poll() is not None:
                raise SystemExit("the server ended before it was ready")
            time.sleep(POLL_S)
        ready_s = time.perf_counter() - begun
        photo = urllib.request.Request(
            f"{url}/v1/detect", PHOTO.read_bytes(), {"Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(photo) as answer:
            answer.read()
        return ready_s, time.perf_counter() - begun
    finally:
        server.terminate()
        server.communicate()


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status == 200
    except urllib.error.HTTPError:
        return False


if __name__ == "__main__":
    main()
