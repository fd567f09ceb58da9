"""A process of its own for work whose driver may crash or hang the process."""

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Final, Generic, TypeVar

from quantizer.errors import BuildFailed

CODE: Final = "from quantizer.evaluation.device_process import run; run({})"
EXIT_S: Final = 10.0  # from the end of the connection to that of the process

T = TypeVar("T")
R = TypeVar("R")


class DeviceProcess(Generic[T, R]):
    """Calls `work`, which can be pickled, in a process that is started when it is needed.

    It is a subprocess, since a build may itself be a daemon of multiprocessing, which may have no
    child; and it does not inherit this process's threads and drivers, as a fork would.
    """

    def __init__(self, work: Callable[[T], R], limit_s: float) -> None:
        self._work = work
        self._limit_s = limit_s
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None

    def call(self, argument: T) -> R:
        """What `work` returns.

        Raises BuildFailed if `work` does, if the process ends, or after `limit_s`.
        """
        connection = self._connection or self._start()
        try:
            connection.send(argument)
            if connection.poll(self._limit_s):
                answer: R | BuildFailed = connection.recv()
                if isinstance(answer, BuildFailed):
                    raise answer
                return answer
        except (EOFError, OSError) as exc:
            raise BuildFailed(f"the process that tried it ended with {self._ended()}") from exc
        self.close()
        raise BuildFailed(f"it did not compile and run within {self._limit_s:g} s")

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._child is not None and self._connection is not None:
            self._connection.close()
            self._child.kill()
            self._child.wait()
        self._child = self._connection = None

    def _start(self) -> "Connection[Any, Any]":
        self._connection, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-c", CODE.format(theirs.fileno())]
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # this process's is for results
                pass_fds=[theirs.fileno()],
            )
        self._connection.send(self._work)
        return self._connection

    def _ended(self) -> str:
        """How the process has ended."""
        assert self._child is not None
        try:
            code = self._child.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            return "no exit code"
        finally:
            self.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def run(descriptor: int) -> None:
    """In the process: until the other end of the connection is closed."""
    with Connection(descriptor) as parent, suppress(EOFError):
        work = parent.recv()
        while True:
            argument = parent.recv()
            try:
                answer = work(argument)
            except BuildFailed as exc:
                answer = exc
            parent.send(answer)
