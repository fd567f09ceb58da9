"""Model folders and server processes for the scripts."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, Final

from zoo import bundle

TIMEOUT_S: Final = 600.0  # `qyolo up` may build
POLL_S: Final = 0.01
TINY_SIZE: Final = 64  # input side in pixels: the engine takes next to no time


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process holds at one moment; `mib` is its resident memory."""

    mib: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Server:
    """A qyolo process that answered /readyz with 200; `log_lines` are complete once it ended."""

    port: int
    process: subprocess.Popen[str]
    log_lines: list[str]

    def resources(self) -> Resources:
        home = Path("/proc", str(self.process.pid))
        status = dict(line.split(":", 1) for line in (home / "status").read_text().splitlines())
        mib, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
        return Resources(mib, len(list((home / "fd").iterdir())), threads)

    def cpu_seconds(self) -> float:
        """Time of all threads, in user and in kernel mode."""
        fields = Path("/proc", str(self.process.pid), "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def built(*arguments: str | Path) -> Iterator[Path]:
    """The folder that `qyolo build ARGUMENTS` wrote; it is removed when the block ends."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        command = [sys.executable, "-m", "qyolo", "build", *arguments, "--out", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield folder


def model_folder(folder: Path | None) -> AbstractContextManager[Path]:
    """The given folder, or the bundled qyolo-nano built for this machine."""
    return built() if folder is None else nullcontext(folder)


def tiny_folder(folder: Path | None) -> AbstractContextManager[Path]:
    """The given folder, or qyolo-nano at 64x64, which makes the server the slow part."""
    if folder is not None:
        return nullcontext(folder)
    sample_images = ("--calibration", bundle.SAMPLES)
    return built(bundle.NAME, "--size", str(TINY_SIZE), *sample_images, "--default", "int8")


def serve(
    folder: Path, *options: str, cores: int | None = None, environment: Mapping[str, object] = {}
) -> AbstractContextManager[Server]:
    """`qyolo serve FOLDER OPTIONS`, on the first `cores` cores if given."""
    return running("serve", str(folder), *options, cores=cores, environment=environment)


@contextmanager
def running(
    *command: str, cores: int | None = None, environment: Mapping[str, object] = {}
) -> Iterator[Server]:
    """Run `qyolo COMMAND` on a free port until the block ends; it must exit with 0 on SIGTERM."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[:cores])  # a child process inherits it
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "qyolo", *command, "--port", "0"],
            env=os.environ | {name: str(value) for name, value in environment.items()},
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.sched_setaffinity(0, all_cores)
    assert process.stderr is not None
    log_lines: list[str] = []
    # A pipe that is not read fills up and blocks the server.
    reader = Thread(target=log_lines.extend, args=(process.stderr,), daemon=True)
    try:
        port = _port(process.stderr)
        reader.start()
        wait_until(lambda: _is_ready(port), process, "the server")
        yield Server(port, process, log_lines)
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0, "the server did not exit with 0"
        reader.join()
    finally:
        process.kill()
        process.wait()


def _port(log: Iterable[str]) -> int:
    lines = []
    for line in log:
        lines.append(line)
        if address := re.search(r"listens on http://\S+:(\d+)", line):
            return int(address[1])
    raise SystemExit(f"the server did not start:\n{''.join(lines)}")


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[Any], name: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{name} ended or hung before it was ready")
        time.sleep(POLL_S)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except OSError:  # refused, or an HTTP status other than 200
        return False
