"""A build in a process of its own, which frees its memory and its packages when it ends."""

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Event
from typing import Final

from quantizer.config import BuildConfig
from quantizer.errors import BadOption, QuantizerError
from qyolo.process import set_up_process
from service.errors import ModelUnavailable, NotReady, ServiceError
from service.folder_cache import lookup, obtain
from service.manifest import CHECKSUMS
from service.progress import Progress, ReportProgress

log = logging.getLogger(__name__)

WAITING: Final = Progress("wait for another build")
TERMINATION_S: Final = 5.0  # until SIGKILL; the next build clears what the killed one left


@dataclass(frozen=True, slots=True)
class Finished:
    """The child's last message: the build's warnings, or the error that ended it."""

    warnings: tuple[str, ...] = ()
    error: Exception | None = None


@dataclass
class BuildSource:
    """A `ModelSource`: an entry of the cache, which a child process builds if it is absent.

    `progress_bars` opens the terminal's bars; `describe` returns the text of an error.
    """

    config: BuildConfig
    root: Path
    key: str
    progress_bars: Callable[[], AbstractContextManager[ReportProgress]]
    describe: Callable[[Exception], str]
    niceness: int = 0  # of the child process
    _cancelled: Event = field(default_factory=Event, init=False)
    _child: SpawnProcess | None = field(default=None, init=False)

    def folder(self, report: ReportProgress) -> Path:
        """Block until the entry exists; raises ModelUnavailable, or NotReady when cancelled."""
        if lookup(self.root, self.key) is None:
            self._build(report)
        return self.root / self.key

    def cancel(self) -> None:
        """Stop the child, if there is one."""
        self._cancelled.set()
        child = self._child
        if child is not None and child.is_alive():
            child.terminate()
            child.join(TERMINATION_S)
            child.kill()

    def _build(self, report: ReportProgress) -> None:
        ours, theirs = get_context("spawn").Pipe(duplex=False)
        arguments = (self.config, self.root, self.key, theirs, self.niceness)
        child = get_context("spawn").Process(target=_run_build, args=arguments, daemon=True)
        child.start()
        self._child = child
        theirs.close()
        if self._cancelled.is_set():
            self.cancel()
        with self.progress_bars() as show:
            finished = _receive(ours, report, show)
        child.join()
        if self._cancelled.is_set():
            raise NotReady("the build was cancelled")
        if finished is None:
            raise ModelUnavailable(f"the build process died with exit code {child.exitcode}")
        if finished.error is not None:
            raise ModelUnavailable(self.describe(finished.error))
        for warning in finished.warnings:
            log.warning(warning)


def check_target(folder: Path) -> None:
    """Raise BadOption instead of replacing something that is not a model folder."""
    if folder.exists() and not folder.is_dir():
        raise BadOption("out", f"{folder} is a file; name an empty or a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CHECKSUMS).exists():
        raise BadOption("out", f"{folder} contains other files; name an empty or a new folder")


def _receive(messages: Connection, *reports: ReportProgress) -> Finished | None:
    """Pass progress on until the child has finished; None if it died before that."""
    with messages:
        while True:
            try:
                message: Progress | Finished = messages.recv()
            except EOFError:
                return None
            if isinstance(message, Finished):
                return message
            for report in reports:
                report(message)


def _run_build(
    config: BuildConfig, root: Path, key: str, parent: Connection, niceness: int
) -> None:
    """Run in the child. If the parent is gone, the next progress report ends the build."""
    os.nice(niceness)
    set_up_process()
    from quantizer.build import build

    warnings: list[str] = []
    try:
        obtain(
            root,
            key,
            lambda folder: warnings.extend(build(config, folder, parent.send).warnings),
            on_wait=lambda: parent.send(WAITING),
        )
        parent.send(Finished(tuple(warnings)))
    except BrokenPipeError:
        return
    except (QuantizerError, ServiceError, OSError) as exc:
        parent.send(Finished(error=exc))
