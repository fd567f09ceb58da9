"""The models of one server, by name.

The first one is always loaded. The others are loaded at the start while they fit into the memory
that models may take, and later when a request needs them; those that were used longest ago make
room. A request holds the version of the model that it uses: a version is freed when the last one
has ended.
"""

import asyncio
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Final, Self, get_args

from service.errors import BadModelFolder, ModelNotFound, NotReady, Refused, ServiceError
from service.experiments.split import BadExperiment, Experiment
from service.inference.admission import Admission
from service.inference.backend import InferenceBackend
from service.inference.comparison import Checks, Record, Requirements
from service.inference.variants import AUTO, unknown_variant
from service.manifest import CHECKSUMS, Manifest, Precision, read_manifest

NAME: Final = re.compile(r"(?!\.)[\w.-]{1,64}", re.ASCII)  # of a model that is not the first
VARIANTS: Final = frozenset({AUTO, *get_args(Precision)})
RETRY_S: Final = 5.0  # after a load that failed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder to serve, under another name than its build's if `name` is one."""

    folder: Path
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """FOLDER or NAME=FOLDER."""
        name, separator, folder = text.partition("=")
        if not separator or not NAME.fullmatch(name) or Path(text).exists():
            return cls(Path(text))
        return cls(Path(folder), name)


class Version:
    """One loaded version of a model; a request uses it inside a `with` block.

    Only the event loop may use or retire it.
    """

    def __init__(self, backend: InferenceBackend, memory_bytes: int, fingerprint: str) -> None:
        self.backend = backend
        self.memory_bytes = memory_bytes  # that loading it took
        self.fingerprint = fingerprint  # of its folder
        self._uses = 0
        self._is_retired = False
        self._freeing: Thread | None = None

    def __enter__(self) -> InferenceBackend:
        self._uses += 1
        return self.backend

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._uses -= 1
        if self._is_retired and not self._uses:
            self._free()

    @property
    def is_freed(self) -> bool:
        """Whether nothing of it is left."""
        return self._freeing is not None and not self._freeing.is_alive()

    def retire(self) -> None:
        """Free it once no request uses it any more."""
        self._is_retired = True
        if not self._uses:
            self._free()

    def close(self, timeout_s: float | None) -> bool:
        """Free it now; whether what is in progress has ended within the time."""
        if self._freeing is None:
            return self.backend.close(timeout_s)
        self._freeing.join(timeout_s)
        return not self._freeing.is_alive()

    def _free(self) -> None:
        """In a thread: the work of a cancelled request may still run, and is waited for."""
        self._freeing = Thread(target=self.backend.close, name="free", daemon=True)
        self._freeing.start()


@dataclass(eq=False)
class Model:
    """A served model, and its version while it is loaded."""

    name: str
    folder: Path
    manifest: Manifest
    experiment: Experiment
    memory_bytes: int  # that it took when it was last loaded, or the size of its files
    version: Version | None = None
    used: float = 0.0  # when a request last asked for it
    failed: float = -RETRY_S  # when it could not be loaded
    problem: str = ""  # why
    served: str = ""  # fingerprint of the folder whose version was served last
    refused: str = ""  # of the one that came while it was unloaded, and did not pass the checks
    loading: "asyncio.Task[None] | None" = field(default=None, repr=False)
    record: "asyncio.Task[Record] | None" = field(default=None, repr=False)  # of `served`

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of its variants, in the manifest's order."""
        version = self.version
        return tuple(self.manifest.variants) if version is None else version.backend.variants.names

    @property
    def failures(self) -> Mapping[str, str]:
        """The variants that are out of service, and why."""
        return {} if self.version is None else self.version.backend.failures()

    @property
    def able(self) -> tuple[str, ...]:
        """The variants that can answer requests which name none; of an unloaded model all."""
        if self.version is None:
            return self.variants
        failures = self.failures
        eligible = self.version.backend.variants.eligible
        return tuple(name for name in eligible if name not in failures)

    def require_variant(self, name: str | None) -> None:
        """Raise VariantNotFound unless it is None, "auto" or one of its variants."""
        if name not in (None, AUTO, *self.variants):
            raise unknown_variant(str(name), self.variants)


# Opens a folder under a name, None: its build's; with the experiment of that model.
OpenModel = Callable[[Path, str | None, Experiment], InferenceBackend]


class Models:
    """Only the event loop may call its methods, apart from the constructor and `close`."""

    def __init__(
        self,
        folders: Sequence[ModelFolder],
        open_model: OpenModel,
        experiments: Mapping[str, Experiment],
        memory_limit: int,
        checks: Checks,
        on_change: Callable[[Model], None],
    ) -> None:
        """Load the first model, and others while they fit; raises ServiceError.

        `memory_limit`: bytes of the loaded models; 0 is no limit. A model that is asked for is
        loaded, beyond the limit if only the first one is left to make room. `experiments`: by
        the names of models; that of the first model by "". `checks`: of a build that came while
        its model was unloaded. `on_change` is called with a model whose version has changed.
        """
        self._open_model = open_model
        self._experiments = experiments
        self._memory_limit = memory_limit
        self._checks = checks
        self._on_change = on_change
        self._lost: Callable[[str], None] = lambda reason: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.changing = asyncio.Lock()  # one version at a time is loaded, since that is measured
        self._is_closed = False
        self._models: dict[str, Model] = {}
        self._retired: set[Version] = set()
        try:
            self._load_all(folders)
        except BaseException:
            self.close()
            raise

    @property
    def first(self) -> Model:
        """The model of requests that name none."""
        return next(iter(self._models.values()))

    @property
    def backend(self) -> InferenceBackend:
        """Of the first model."""
        assert self.first.version is not None
        return self.first.version.backend

    @property
    def admission(self) -> Admission:
        """Of the requests for all models."""
        return self.backend.admission

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, name: str | None = None) -> Model:
        """The model of this name, None: the first; raises ModelNotFound."""
        if name is None:
            return self.first
        if name not in self._models:
            raise ModelNotFound(f"no model {name!r}; there are: {', '.join(self._models)}")
        return self._models[name]

    def resolve(self, text: str) -> tuple[Model, str | None]:
        """A variant of the first model, NAME or NAME:VARIANT -> the model, and the variant if any.

        Raises VariantNotFound.
        """
        if text in (AUTO, *self.first.variants):
            return self.first, text
        for model in self:
            if text == model.name:
                return model, None
            if text.startswith(f"{model.name}:"):
                variant = text[len(model.name) + 1 :]
                model.require_variant(variant)
                return model, variant
        raise unknown_variant(text, self.first.variants, models=tuple(self._models))

    async def get(self, model: Model) -> Version:
        """The version of a model, for a `with` block; loads it if need be.

        Raises NotReady if it cannot be loaded.
        """
        model.used = time.monotonic()
        while model.version is None:
            await self._load(model)
        return model.version

    def open(self, model: Model, folder: Path) -> Version:
        """A new version of a model, which nobody uses yet; blocks, and raises ServiceError."""
        return self._open(folder, model.name, model.experiment)

    async def record(self, model: Model) -> Record:
        """What the served version finds in images, or the one that was unloaded."""
        if model.version is not None:
            with model.version as served:
                return await asyncio.to_thread(self._checks.record, model.name, served)
        return Record(model.manifest) if model.record is None else await model.record

    def switch(self, model: Model, folder: Path, version: Version) -> None:
        """Give new requests this version of a folder; the old one ends with its last request."""
        if self._is_closed:
            raise NotReady("the server is stopping")
        old, model.folder = model.version, folder
        self._install(model, version)
        self._make_room(model)
        log.info("%s: a version of %s is served", model.name, model.manifest.created)
        if old is not None:
            self._retire(old)

    def when_lost(self, call: Callable[[str], None], loop: asyncio.AbstractEventLoop) -> None:
        """Have the function called, in another thread, once no variant of the first model could be
        recovered. Another model is unloaded then, so that the next request loads it again.
        """
        self._lost, self._loop = call, loop
        for model in self:
            self._watch(model)

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait for what is in progress, then free everything; whether it ended within the time."""
        self._is_closed = True
        until = None if timeout_s is None else time.monotonic() + timeout_s
        loaded = [model.version for model in self if model.version is not None]
        has_ended = True
        for version in (*self._retired, *loaded):
            left_s = None if until is None else max(0.0, until - time.monotonic())
            has_ended = version.close(left_s) and has_ended
        return has_ended

    def _load_all(self, folders: Sequence[ModelFolder]) -> None:
        first, *others = folders
        experiment = self._experiments.get("", Experiment())
        version = self._open(first.folder, first.name, experiment)
        manifest = version.backend.variants.manifest
        model = Model(manifest.name, first.folder, manifest, experiment, version.memory_bytes)
        self._models[model.name] = model
        self._install(model, version)
        for other in others:
            self._add(other)
        unknown = [name for name in self._experiments if name and name not in self._models]
        if unknown:
            raise BadExperiment(
                f"the A/B split or the shadow names no model of this server: {unknown[0]!r}; "
                f"there are: {', '.join(self._models)}, of which the first needs no name"
            )
        for model in list(self)[1:]:
            if not self._exceeds(model.memory_bytes):
                self._install(model, self.open(model, model.folder))
                if self._exceeds():
                    self._unload(model)

    def _add(self, other: ModelFolder) -> None:
        manifest = read_manifest(other.folder)
        name = other.name or manifest.name
        if name in self._models or name in VARIANTS or not NAME.fullmatch(name):
            why = "is taken" if name in self._models else "cannot be used"
            raise BadModelFolder(
                f"the name {name!r} {why}: give the model another one, as NAME={other.folder}"
            )
        experiment = self._experiments.get(name, Experiment())
        manifest = manifest.model_copy(update={"name": name})
        size = _size_of(other.folder, manifest)
        self._models[name] = Model(name, other.folder, manifest, experiment, size)

    def _open(self, folder: Path, name: str | None, experiment: Experiment) -> Version:
        fingerprint, before = fingerprint_of(folder), _resident_bytes()
        backend = self._open_model(folder, name, experiment)
        grown = _resident_bytes() - before
        size = max(grown, _size_of(folder, backend.variants.manifest))
        return Version(backend, size, fingerprint)

    async def _load(self, model: Model) -> None:
        """Wait until it is loaded; the load goes on though this request is cancelled."""
        if model.loading is None:
            wait_s = model.failed + RETRY_S - time.monotonic()
            if wait_s > 0:
                raise _not_loaded(model)
            model.loading = asyncio.create_task(self._load_alone(model))
            model.loading.add_done_callback(partial(_loaded, model))
        await asyncio.shield(model.loading)

    async def _load_alone(self, model: Model) -> None:
        async with self.changing:
            try:
                version = await self._open_checked(model)
            except Exception as exc:
                expected = isinstance(exc, ServiceError)
                log.error(
                    "%s cannot be loaded: %s", model.name, exc, exc_info=None if expected else exc
                )
                model.problem = str(exc) if isinstance(exc, Refused) else "the log says why"
                model.failed = time.monotonic()
                raise _not_loaded(model) from exc
            if self._is_closed:
                await asyncio.to_thread(version.backend.close)
                raise NotReady("the server is stopping")
            self._install(model, version)
            self._make_room(model)

    async def _open_checked(self, model: Model) -> Version:
        """What is in its folder now; raises ServiceError.

        A build that came while the model was unloaded must pass the checks of a reload. One that
        does not is loaded no second time.
        """
        if model.refused and model.refused == await asyncio.to_thread(fingerprint_of, model.folder):
            raise Refused(model.problem)
        self._make_room(model, model.memory_bytes)
        version = await asyncio.to_thread(self.open, model, model.folder)
        if model.served in ("", version.fingerprint):
            return version
        try:
            await asyncio.to_thread(
                self._checks.judge, await self.record(model), version.backend, Requirements()
            )
        except BaseException as exc:
            await asyncio.to_thread(version.close, None)
            if isinstance(exc, Refused):
                model.refused = version.fingerprint
                self._checks.count(model.name, "refused")
            raise
        log.info("%s: another build was in its folder; it is served", model.name)
        self._checks.count(model.name, "switched")
        return version

    def _install(self, model: Model, version: Version) -> None:
        model.version, model.memory_bytes = version, version.memory_bytes
        if model.served != version.fingerprint:
            model.served, model.refused, model.record = version.fingerprint, "", None
        model.manifest = version.backend.variants.manifest
        self._on_change(model)
        if self._loop is not None:
            self._watch(model)

    def _make_room(self, wanted: Model, more: int = 0) -> None:
        """Unload others, but for the first, until `more` bytes fit."""
        while self._exceeds(more):
            loaded = [each for each in list(self)[1:] if each.version and each is not wanted]
            if not loaded:
                log.warning("the loaded models take more than %d bytes", self._memory_limit)
                return
            self._unload(min(loaded, key=lambda each: each.used))

    def _exceeds(self, more: int = 0) -> bool:
        """Whether `more` bytes do not fit beside what is loaded."""
        loaded = sum(each.version.memory_bytes for each in self if each.version)
        return bool(self._memory_limit) and loaded + more > self._memory_limit

    def _unload(self, model: Model, is_lost: bool = False) -> None:
        if (version := model.version) is None:
            return
        log.info("%s is unloaded", model.name)
        model.version = None
        self._on_change(model)
        if self._loop is None or is_lost or model.record is not None:
            self._retire(version)
        else:
            model.record = self._loop.create_task(self._record_last(model, version))

    async def _record_last(self, model: Model, version: Version) -> Record:
        """What a version that is unloaded finds, before it is freed."""
        self._retired.add(version)
        try:
            return await asyncio.to_thread(self._checks.record, model.name, version.backend)
        except Exception as exc:
            log.error("%s cannot be compared with a later build", model.name, exc_info=exc)
            return Record(version.backend.variants.manifest)
        finally:
            if not self._is_closed:
                self._retire(version)

    def _retire(self, version: Version) -> None:
        self._retired = {each for each in self._retired if not each.is_freed} | {version}
        version.retire()

    def _watch(self, model: Model) -> None:
        if model.version is not None:
            lose = partial(self._lose, model, model.version)
            model.version.backend.when_lost(lose)

    def _lose(self, model: Model, version: Version, reason: str) -> None:
        """In the thread of the supervision."""
        if model.version is not version:
            return
        if model is self.first:
            self._lost(reason)
            return
        log.error("no variant of %s can be recovered: %s", model.name, reason)

        def unload() -> None:
            if model.version is version:
                self._unload(model, is_lost=True)

        assert self._loop is not None
        self._loop.call_soon_threadsafe(unload)


def _loaded(model: Model, task: "asyncio.Task[None]") -> None:
    model.loading = None
    if not task.cancelled():
        task.exception()  # it has been logged, whether or not a request still waits for it


def _not_loaded(model: Model) -> NotReady:
    return NotReady(f"the model {model.name} cannot be loaded; {model.problem}")


def _size_of(folder: Path, manifest: Manifest) -> int:
    """Bytes of the engines' files."""
    names = {
        name
        for variant in manifest.variants.values()
        for name in (variant.model, variant.raw, variant.projections, variant.blob)
        if name is not None
    }
    return sum((folder / name).stat().st_size for name in names if (folder / name).is_file())


def fingerprint_of(folder: Path) -> str:
    """Changes with every build of a folder; empty where there is none."""
    try:
        return hashlib.sha256((folder / CHECKSUMS).read_bytes()).hexdigest()
    except OSError:
        return ""


def _resident_bytes() -> int:
    """Of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
