"""From a model source to a running pipeline and back, while the server answers probes."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Literal, Protocol

from service.errors import NotReady, ServiceError
from service.inference.backend import InferenceBackend
from service.manifest import Manifest
from service.progress import Progress, ReportProgress

log = logging.getLogger(__name__)


State = Literal["building", "loading", "ready", "failed", "stopping"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """The server's state and, while it is building, where the build is."""

    state: State
    progress: Progress | None = None
    detail: str = ""


class ModelSource(Protocol):
    """Gives the server its model folder, at once or after a build."""

    def folder(self, report: ReportProgress) -> Path:
        """Block until the folder is there, telling how far it is; raises ServiceError."""

    def cancel(self) -> None:
        """Make a `folder` call in another thread return soon, by raising NotReady."""


class FolderSource:
    """A model folder that is already there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def folder(self, report: ReportProgress) -> Path:
        return self._path

    def cancel(self) -> None:
        """There is nothing to wait for."""


class Lifecycle:
    """Brings the model up in a thread of its own, once; `on_failure` is called in that thread."""

    def __init__(
        self,
        source: ModelSource,
        open_pipeline: Callable[[Path], InferenceBackend],
        on_failure: Callable[[str], None],
    ) -> None:
        self._source = source
        self._open_pipeline = open_pipeline
        self._on_failure = on_failure
        self._readiness = Readiness("building")
        self._changing = Lock()
        self._pipeline: InferenceBackend | None = None
        # A daemon, so that a source that cannot be cancelled does not keep a killed process alive.
        self._thread = Thread(target=self._bring_up, name="model", daemon=True)

    @property
    def readiness(self) -> Readiness:
        return self._readiness

    @property
    def pipeline(self) -> InferenceBackend:
        """Raises NotReady, saying how far it is."""
        if self._readiness.state != "ready" or self._pipeline is None:
            raise NotReady(_in_words(self._readiness))
        return self._pipeline

    def start(self) -> None:
        self._thread.start()

    async def settled(self) -> Readiness:
        """The state once the model is up, or is known not to come."""
        await asyncio.to_thread(self._thread.join)
        return self._readiness

    async def stop(self) -> None:
        """Give up what is not ready yet, finish what runs, free everything."""
        self._become(Readiness("stopping"))
        self._source.cancel()
        await asyncio.to_thread(self._thread.join)
        if self._pipeline is not None:
            await asyncio.to_thread(self._pipeline.close)

    def _bring_up(self) -> None:
        try:
            folder = self._source.folder(self._report)
            self._become(Readiness("loading"))
            self._pipeline = self._open_pipeline(folder)
        except Exception as exc:
            self._fail(exc)
        else:
            self._become(Readiness("ready", detail=_caveat(self._pipeline.variants.manifest)))

    def _report(self, progress: Progress) -> None:
        self._become(Readiness("building", progress))

    def _fail(self, exc: Exception) -> None:
        if self._readiness.state == "stopping":  # it was told to give up
            return
        foreseen = isinstance(exc, ServiceError)
        message = str(exc) if foreseen else f"{type(exc).__name__}: {exc}"
        log.error("the model cannot be served: %s", message, exc_info=None if foreseen else exc)
        # The message may name paths, so whoever polls /readyz is sent to the log.
        self._become(Readiness("failed", detail="the model cannot be served; the log says why"))
        self._on_failure(message)

    def _become(self, readiness: Readiness) -> None:
        with self._changing:
            if self._readiness.state != "stopping":
                self._readiness = readiness


def _caveat(manifest: Manifest) -> str:
    """What a reader of /readyz must know of a model that is served, if anything."""
    return "; ".join(
        f"{manifest.default} is served, {name} was rejected: {reason}"
        for name, reason in manifest.rejected.items()
    )


def _in_words(readiness: Readiness) -> str:
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
