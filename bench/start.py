"""From `qyolo up` to the first 200 of /readyz: the first start, which builds, and later ones.

.venv/bin/python bench/start.py MODEL --calibration DIR
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

POLL_S = 0.01
LATER = 5  # starts that find the cache filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    arguments = parser.parse_args()
    with TemporaryDirectory() as cache:
        first = seconds_until_ready(arguments.model, arguments.calibration, cache)
        later = [
            seconds_until_ready(arguments.model, arguments.calibration, cache) for _ in range(LATER)
        ]
    print(f"first start: ready after {first:.2f} s")
    print(f"later starts: {', '.join(f'{seconds:.2f}' for seconds in later)} s")


def seconds_until_ready(model: Path, calibration: Path, cache: str) -> float:
    """Start a server on a free port, wait for it, stop it."""
    command = [sys.executable, "-m", "qyolo", "up", model, "--calibration", calibration]
    start = time.perf_counter()
    server = subprocess.Popen(
        [*command, "--port", "0"],
        env=os.environ | {"QYOLO_CACHE_DIR": cache},
        stderr=subprocess.PIPE,
        text=True,
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
        return time.perf_counter() - start
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
