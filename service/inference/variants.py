"""The variants of one model folder, and which of them answers a request."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from service.engines.cpu import usable_threads
from service.errors import BadModelFolder, EngineFailed, VariantFailed, VariantNotFound
from service.experiments.events import Assigned
from service.experiments.split import Experiment
from service.inference.detector import Detector
from service.inference.first_start import settle_default
from service.manifest import CHECKSUMS, PAGE, REPORT, Manifest, read_manifest, verify

AUTO: Final = "auto"

log = logging.getLogger(__name__)


class Closable(Protocol):
    def close(self) -> None:
        """Free what it holds."""


T = TypeVar("T", bound=Closable)


def _cannot_load(name: str) -> Any:
    raise EngineFailed(f"{name} cannot be loaded a second time")


class VariantSet(Generic[T]):
    """The variants of one model; T is what infers for a variant, such as a detector."""

    def __init__(
        self,
        manifest: Manifest,
        detectors: Mapping[str, T],
        report: bytes | None = None,
        page: bytes | None = None,
        streams: int = 1,
        load: Callable[[str], T] = _cannot_load,
    ) -> None:
        self.manifest = manifest
        self.report = report  # report.json of the model folder
        self.page = page  # report.html of the model folder
        self.streams = streams  # images that a detector infers at a time
        self.load = load  # what infers for the variant of this name, loaded once more
        self._detectors = dict(detectors)

    @property
    def eligible(self) -> tuple[str, ...]:
        """The variants that may answer requests which name none, the preferred one first.

        The default, then those that the accuracy gate accepted, in the manifest's order.
        """
        accepted = (name for name in self._detectors if name not in self.manifest.rejected)
        default = self.manifest.default
        return tuple(dict.fromkeys(filter(self._detectors.__contains__, (default, *accepted))))

    @property
    def names(self) -> tuple[str, ...]:
        """In the manifest's order."""
        return tuple(self._detectors)

    def rename(self, name: str) -> None:
        """Serve the model under another name than its build gave it."""
        self.manifest = self.manifest.model_copy(update={"name": name})

    def resolve(self, requested: str | None) -> str:
        """The name that a request means: None and "auto" are the manifest's default.

        Raises VariantNotFound.
        """
        name = self.manifest.default if requested is None or requested == AUTO else requested
        self.get(name)
        return name

    def get(self, name: str) -> T:
        """What infers for the variant of this name; raises VariantNotFound."""
        if name not in self._detectors:
            raise unknown_variant(name, self.names)
        return self._detectors[name]

    def replace(self, name: str, detector: T) -> T:
        """Let another one infer for the variant of this name; returns the one before."""
        old = self._detectors[name]
        self._detectors[name] = detector
        return old

    def close(self) -> None:
        """Free every detector."""
        for detector in self._detectors.values():
            detector.close()


def unknown_variant(
    name: str, variants: Sequence[str], models: Sequence[str] = ()
) -> VariantNotFound:
    """The error for a name that is none of these variants, nor of these models if several are."""
    text = f"no variant {name!r}; there are: {', '.join(variants)}"
    if len(models) > 1:
        text += f"; and the models {', '.join(models)}, as NAME or NAME:VARIANT"
    return VariantNotFound(text)


class Chosen(NamedTuple):
    """The variant of a request, and the one that would have answered had its engine not failed."""

    variant: str
    instead_of: str | None = None


class VariantChoice:
    """Chooses the variant of each request; `failures` are the broken ones, and why."""

    def __init__(
        self,
        variants: VariantSet[Any],
        experiment: Experiment,
        emit: Callable[[Assigned], None],
        failures: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.experiment = experiment
        self._variants = variants
        self._emit = emit
        self._failures = failures

    def choose(self, requested: str | None, client: str) -> Chosen:
        """The requested variant; without one, the client's variant of the A/B split.

        Without a split, the manifest's default. Where the engine of a variant that was not
        requested is broken, another one takes its place. Raises VariantNotFound, VariantFailed.
        """
        failures = self._failures()
        split = self.experiment.split
        if split is None or requested not in (None, AUTO):
            chosen = self._variants.resolve(requested)
        else:
            chosen = split.choose(client)
            self._emit(Assigned(chosen))
        if chosen not in failures:
            return Chosen(chosen)
        if requested in (None, AUTO):
            for name in self._variants.eligible:
                if name not in failures:
                    return Chosen(name, chosen)
        raise VariantFailed(f"{chosen} failed: {failures[chosen]}")


def load_variants(
    folder: Path, threads: int, throughput: bool = False, only: Collection[str] | None = None
) -> VariantSet[Detector]:
    """The variants of a model folder, verified, loaded and warm; `only` names those to load.

    `threads` 0 takes the CPU quota. With `throughput` each thread infers an image of its own;
    otherwise all threads share one. Raises BadModelFolder, EngineFailed or DeviceUnavailable.
    """
    manifest = read_manifest(folder)
    streams = streams_of(manifest, threads, throughput)

    def load(name: str) -> Detector:
        detector = Detector.load(folder, manifest, name, threads, streams)
        try:
            detector.warm_up()
        except BaseException:
            detector.close()
            raise
        return detector

    detectors: dict[str, Detector] = {}
    try:
        for name in list(manifest.variants):
            if only is not None and name not in only:
                continue
            try:
                detectors[name] = load(name)
            except EngineFailed as exc:
                if manifest.variants[name].device is None or only is not None:
                    raise
                manifest = manifest.without(name)
                log.warning(
                    "%s %s is not served, %s is the default: %s",
                    manifest.name,
                    name,
                    manifest.default,
                    exc,
                )
            else:
                log.info("loaded %s %s", manifest.name, name)
        manifest = settle_default(folder, manifest, detectors)
    except BaseException:
        for detector in detectors.values():
            detector.close()
        raise

    checksums = (folder / CHECKSUMS).read_bytes()

    def load_again(name: str) -> Detector:
        verify(folder)
        if (folder / CHECKSUMS).read_bytes() != checksums:
            raise BadModelFolder(f"{folder} holds another build now, which a reload would serve")
        return load(name)

    return VariantSet(manifest, detectors, *read_reports(folder), streams, load_again)


def streams_of(manifest: Manifest, threads: int, throughput: bool) -> int:
    """Images that an engine of this model infers at a time; `threads` 0 takes the CPU quota."""
    is_parallel = throughput and manifest.device == "cpu"
    return (threads or usable_threads()) if is_parallel else 1


def read_reports(folder: Path) -> tuple[bytes | None, bytes | None]:
    """report.json and report.html of a model folder; None for one that it lacks."""
    report, page = (
        path.read_bytes() if path.is_file() else None for path in (folder / REPORT, folder / PAGE)
    )
    return report, page
