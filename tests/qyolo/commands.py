"""The command line, in this process or as users run it: in a process of its own."""

import contextlib
import io
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from qyolo.cli.commands import main
from tests import plain_http
from tests.waiting import wait_until

WAIT_LIMIT_S = 180.0  # only what hangs takes so long
PAUSE_S = 0.05  # to ask a server more often would take the processor that it starts on
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Ran:
    """The exit code of a finished command, and its output."""

    code: int
    out: str
    err: str


def environment(**settings: object) -> dict[str, str]:
    """This process's without settings of qyolo, and a terminal so wide that rich does not wrap."""
    foreign = ("QYOLO_", "OTEL_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return ours | {"COLUMNS": "200"} | {name: str(value) for name, value in settings.items()}


def qyolo(*arguments: object, cwd: Path | None = None, **settings: object) -> Ran:
    """Run a command to its end in a process; `settings` are environment variables."""
    done = subprocess.run(
        [sys.executable, "-m", "qyolo", *map(str, arguments)],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=WAIT_LIMIT_S,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def inline(*arguments: object, cwd: Path | None = None, **settings: object) -> Ran:
    """The same in this process, which has imported the packages already.

    Not for commands that serve: they set up logging and signals.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        wanted = environment(**settings)
        for name in set(os.environ) - set(wanted):
            patch.delenv(name)
        for name, value in wanted.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["qyolo", *map(str, arguments)])
        if cwd is not None:
            patch.chdir(cwd)
        try:
            main()
        except SystemExit as exc:
            code = int(exc.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


def on_terminal(*arguments: object, **settings: object) -> str:
    """The stderr of a command that succeeds, when that is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "qyolo", *map(str, arguments)],
        env=environment(TERM="xterm", **settings),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux raises it when the other end is closed
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    assert process.wait(WAIT_LIMIT_S) == 0
    return shown.decode()


wait_for = partial(wait_until, limit_s=WAIT_LIMIT_S, pause_s=PAUSE_S)


@dataclass
class Running:
    """A server process that has printed its address."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)

    @property
    def err(self) -> str:
        return "".join(self.lines)

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"X-API-Key": key}
        return plain_http.get(self.url + path, headers=headers, timeout=WAIT_LIMIT_S)

    def detect(self, image: bytes, query: str = "") -> dict:
        headers = {"Content-Type": "image/jpeg"}
        url = f"{self.url}/v1/detect{query}"
        answer = plain_http.post(url, content=image, headers=headers, timeout=WAIT_LIMIT_S)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_until_ready(self) -> None:
        wait_for(lambda: self.get("/readyz").status_code == 200)

    def builds(self) -> list[int]:
        """Its child processes that build."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [
            int(child)
            for task in tasks.iterdir()
            for child in (task / "children").read_text().split()
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()
        ]

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send the signal; returns the exit code."""
        self.process.send_signal(signum)
        return self.process.wait(WAIT_LIMIT_S)


@contextmanager
def running(*arguments: object, **settings: object) -> Iterator[Running]:
    """Start a server on a free port; it is killed at the end of the block if it still runs."""
    with running_command("-m", "qyolo", *arguments, "--port", 0, **settings) as server:
        yield server


@contextmanager
def running_command(*command: object, **settings: object) -> Iterator[Running]:
    """The same for another server, by the arguments of the interpreter."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment(**settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")))
    reader.start()
    try:
        wait_for(lambda: process.poll() is not None or any("listens on" in ln for ln in lines))
        address = re.search(r'listens on (http://[^\s"]+)', "".join(lines))
        assert address is not None, "".join(lines)
        yield Running(process, address[1], lines)
    finally:
        process.kill()
        process.wait(WAIT_LIMIT_S)
        reader.join(WAIT_LIMIT_S)
        process.stderr.close()


def gone(pid: int) -> bool:
    """Whether a process has ended; its new parent may not have waited for it yet."""
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()
