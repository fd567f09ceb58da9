"""A server process seen from outside: what it holds, and what it writes to its log."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.tiny_models import SIZE, save_tiny
from zoo import bundle

PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at one moment."""

    mib: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Watched:
    """A server that is ready."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def held(self) -> Held:
        home = Path("/proc", str(self.process.pid))
        status = dict(line.split(":", 1) for line in (home / "status").read_text().splitlines())
        mib, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
        return Held(mib, len(list((home / "fd").iterdir())), threads)

    def cpu_seconds(self) -> float:
        """Of all its threads, in user and in kernel mode."""
        fields = Path("/proc", str(self.process.pid), "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def tiny_folder() -> Iterator[Path]:
    """A model folder of the tests' tiny YOLOv5, so that the engine takes next to no time."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        model = save_tiny(Path(scratch), "yolov5")
        command = [sys.executable, "-m", "qyolo", "build", str(model), "--out", str(folder)]
        command += ["--calibration", str(bundle.SAMPLES), "--size", str(SIZE), "--default", "int8"]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, stdout=quiet, stderr=quiet)
        yield folder


@contextmanager
def watched(folder: Path, cores: int | None = None, **settings: object) -> Iterator[Watched]:
    """A server of this folder, on so many cores; it must end with 0 when it is told to stop."""
    with TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        environment = os.environ | {name: str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "qyolo", "serve", str(folder), "--port", "0"]
        everywhere = os.sched_getaffinity(0)
        with log.open("wb") as sink:
            os.sched_setaffinity(0, sorted(everywhere)[:cores])  # a process inherits it
            try:
                process = subprocess.Popen(command, env=environment, stderr=sink)
            finally:
                os.sched_setaffinity(0, everywhere)
        try:
            port = _told(log, process)
            _wait(port, process)
            yield Watched(port, process, log)
            process.terminate()
            assert process.wait(PATIENCE_S) == 0, "the server did not end with 0"
        finally:
            process.kill()
            process.wait()


def _told(log: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        if told := re.search(r"listens on http://[^ ]+:(\d+)", log.read_text()):
            return int(told[1])
        time.sleep(0.05)
    raise SystemExit(f"the server did not start: {log.read_text()}")


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not become ready")
