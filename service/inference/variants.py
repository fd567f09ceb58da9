"""The variants of one model folder, and which of them answers a request."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from service.engines.cpu import usable_threads
from service.errors import VariantNotFound
from service.experiments.events import Assigned
from service.experiments.split import Experiment
from service.inference.detector import Detector
from service.manifest import PAGE, REPORT, Manifest, read_manifest

AUTO: Final = "auto"

log = logging.getLogger(__name__)


class Closable(Protocol):
    def close(self) -> None:
        """Free what it holds."""


T = TypeVar("T", bound=Closable)


class VariantSet(Generic[T]):
    """The variants of one model; T is what infers for a variant, such as a detector."""

    def __init__(
        self,
        manifest: Manifest,
        detectors: Mapping[str, T],
        report: bytes | None = None,
        page: bytes | None = None,
        streams: int = 1,
    ) -> None:
        self.manifest = manifest
        self.report = report  # report.json of the model folder
        self.page = page  # report.html of the model folder
        self.streams = streams  # images that a detector infers at a time
        self._detectors = detectors

    @property
    def names(self) -> tuple[str, ...]:
        """In the manifest's order."""
        return tuple(self._detectors)

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
            raise VariantNotFound(f"no variant {name!r}; there are: {', '.join(self.names)}")
        return self._detectors[name]

    def close(self) -> None:
        """Free every detector."""
        for detector in self._detectors.values():
            detector.close()


class VariantChoice:
    """Chooses the variant of each request."""

    def __init__(
        self,
        variants: VariantSet[Any],
        experiment: Experiment,
        emit: Callable[[Assigned], None],
    ) -> None:
        self.experiment = experiment
        self._variants = variants
        self._emit = emit

    def choose(self, requested: str | None, client: str) -> str:
        """The requested variant; without one, the client's variant of the A/B split.

        Without a split, the manifest's default. Raises VariantNotFound.
        """
        split = self.experiment.split
        if split is None or requested not in (None, AUTO):
            return self._variants.resolve(requested)
        chosen = split.choose(client)
        self._emit(Assigned(chosen))
        return chosen


def load_variants(
    folder: Path, threads: int, throughput: bool = False, only: Collection[str] | None = None
) -> VariantSet[Detector]:
    """The variants of a model folder, verified, loaded and warm; `only` names those to load.

    `threads` 0 takes the CPU quota. With `throughput` each thread infers an image of its own;
    otherwise all threads share one. Raises BadModelFolder, EngineFailed or DeviceUnavailable.
    """
    manifest = read_manifest(folder)
    streams = streams_of(manifest, threads, throughput)
    detectors: dict[str, Detector] = {}
    try:
        for name in manifest.variants:
            if only is not None and name not in only:
                continue
            detectors[name] = Detector.load(folder, manifest, name, threads, streams)
            detectors[name].warm_up()
            log.info("loaded %s %s", manifest.name, name)
    except BaseException:
        for detector in detectors.values():
            detector.close()
        raise
    return VariantSet(manifest, detectors, *read_reports(folder), streams)


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
