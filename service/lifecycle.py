"""The states of the server and its models: building, loading, ready or failed, stopping."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Final, Literal, Protocol

from service.errors import NotReady, ServiceError
from service.inference.backend import InferenceBackend
from service.inference.models import Models
from service.manifest import Manifest
from service.progress import Progress, ReportProgress

LEAST_S: Final = 0.5  # for each of the last steps, though the time to drain is over

log = logging.getLogger(__name__)

State = Literal["building", "loading", "ready", "failed", "stopping"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """The server's state and, while it builds, the build's progress."""

    state: State
    progress: Progress | None = None
    detail: str = ""


class ModelSource(Protocol):
    """Provides the model folder, at once or after a build."""

    def folder(self, report: ReportProgress) -> Path:
        """Block until the folder exists, and report progress; raises ServiceError."""

    def cancel(self) -> None:
        """Make a `folder` call in another thread raise NotReady soon."""


class FolderSource:
    """A model folder that exists."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def folder(self, report: ReportProgress) -> Path:
        return self._path

    def cancel(self) -> None:
        """Nothing to cancel."""


class Lifecycle:
    """Loads the models once, in its own thread, which calls `on_failure` if that fails."""

    def __init__(
        self,
        source: ModelSource,
        open_models: Callable[[Path], Models],
        on_failure: Callable[[str], None],
        drain_s: float,
    ) -> None:
        self._source = source
        self._open_models = open_models
        self._on_failure = on_failure
        self._drain_s = drain_s
        self._drain_until: float | None = None
        self.has_ended = True  # False: a thread still works, though the server has stopped
        self._readiness = Readiness("building")
        self._state_lock = Lock()
        self._models: Models | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # A daemon: a source that ignores cancel() must not keep the process alive.
        self._thread = Thread(target=self._load, name="model", daemon=True)

    @property
    def readiness(self) -> Readiness:
        """Failed while every variant that may answer is out of service."""
        if self._readiness.state != "ready" or self._models is None:
            return self._readiness
        return _with_failures(self._models)

    def require_ready(self) -> None:
        """Raise NotReady unless a request that names no variant can be answered."""
        readiness = self.readiness
        if readiness.state != "ready":
            raise NotReady(_describe(readiness))

    @property
    def models(self) -> Models:
        """Raises NotReady, with the state and the progress."""
        if self._readiness.state != "ready" or self._models is None:
            raise NotReady(_describe(self._readiness))
        return self._models

    @property
    def backend(self) -> InferenceBackend:
        """Of the first model; raises NotReady."""
        return self.models.backend

    async def settled(self) -> Readiness:
        """Wait until the model is loaded, or has failed."""
        await asyncio.to_thread(self._thread.join)
        return self._readiness

    def begin_drain(self) -> None:
        """The server begins to stop: what is in progress has `drain_s` from now on."""
        if self._drain_until is None:
            self._drain_until = time.monotonic() + self._drain_s

    def remaining_s(self) -> float:
        """Seconds of the drain that are left for a step of it."""
        self.begin_drain()
        assert self._drain_until is not None
        return max(LEAST_S, self._drain_until - time.monotonic())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At the end of the block a build is cancelled; a backend finishes its work and closes.

        Work that has not ended when the drain has is left to its thread.
        """
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        try:
            yield
        finally:
            self._set(Readiness("stopping"))
            self._source.cancel()
            await asyncio.to_thread(self._thread.join, self.remaining_s())
            self.has_ended = not self._thread.is_alive()
            if self._models is not None:
                closed = await asyncio.to_thread(self._models.close, self.remaining_s())
                self.has_ended = self.has_ended and closed

    def _load(self) -> None:
        try:
            folder = self._source.folder(
                lambda progress: self._set(Readiness("building", progress))
            )
            self._set(Readiness("loading"))
            self._models = self._open_models(folder)
            assert self._loop is not None
            self._models.when_lost(self._lose, self._loop)
        except BaseException as exc:  # a panic in Rust is no Exception
            self._fail(exc)
        else:
            self._set(Readiness("ready"))

    def _fail(self, exc: BaseException) -> None:
        if self._readiness.state == "stopping":  # cancelled, which is no failure
            return
        expected = isinstance(exc, ServiceError)
        message = str(exc) if expected else f"{type(exc).__name__}: {exc}"
        log.error("the model cannot be served: %s", message, exc_info=None if expected else exc)
        # /readyz is public, and the message may contain paths.
        self._set(Readiness("failed", detail="the model cannot be served; the log says why"))
        self._on_failure(message)

    def _lose(self, reason: str) -> None:
        log.error("no variant can be recovered: %s", reason)
        self._set(Readiness("failed", detail=reason))
        self._on_failure(f"no variant can be recovered: {reason}")

    def _set(self, readiness: Readiness) -> None:
        with self._state_lock:
            if self._readiness.state != "stopping":
                self._readiness = readiness


def _with_failures(models: Models) -> Readiness:
    """What is out of service, whether another variant answers for the default, and rejections.

    The first model decides the state.
    """
    state: State = "ready"
    texts = []
    for model in models:
        failures, able = model.failures, model.able
        of = "" if model is models.first else f"{model.name}: "
        default = model.manifest.default
        if able and default in failures:
            texts.append(f"{of}{able[0]} answers for {default}")
        texts += [
            f"{of}{name} failed: {why}; it is being loaded again" for name, why in failures.items()
        ]
        if able or not failures:
            texts += [of + each for each in _rejections(model.manifest)]
        elif model is models.first:
            state = "failed"
    return Readiness(state, detail="; ".join(texts))


def _rejections(manifest: Manifest) -> list[str]:
    """The variants that failed the accuracy gate, for /readyz."""
    return [
        f"{manifest.default} is served, {name} was rejected: {reason}"
        for name, reason in manifest.rejected.items()
    ]


def _describe(readiness: Readiness) -> str:
    match readiness.state:
        case "building":
            progress = readiness.progress
            if progress is None:
                return "the model is being built"
            count = f" {progress.done} of {progress.total}" if progress.total else ""
            return f"the model is being built: {progress.phase}{count}"
        case "failed":
            return readiness.detail
        case state:
            return f"the server is {state}"
