"""A model folder and a server of it, for benches."""

import http.client
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

PATIENCE_S = 60.0


@contextmanager
def model_folder(given: Path | None) -> Iterator[Path]:
    """The given one, or the detector in the box built for this machine."""
    if given is not None:
        yield given
        return
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        command = [sys.executable, "-m", "qyolo", "build", "--out", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield folder


@contextmanager
def server(folder: Path, *options: str) -> Iterator[int]:
    """The port of a server that is ready; it is stopped when the block ends."""
    command = [sys.executable, "-m", "qyolo", "serve", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        told = next((line for line in process.stderr if "listens on" in line), None)
        if told is None:
            raise SystemExit("the server did not start")
        # A log that nobody reads fills its pipe, and then the server waits.
        Thread(target=process.stderr.read, daemon=True).start()
        port = int(re.findall(r":(\d+)", told)[-1])
        _wait(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit("the server ended before it was ready")
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise SystemExit("the server did not become ready")
