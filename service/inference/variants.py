"""The loaded detectors of one model folder."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from service.engines.cpu import usable_threads
from service.errors import VariantNotFound
from service.inference.detector import Detector
from service.manifest import PAGE, REPORT, Manifest, read_manifest

AUTO: Final = "auto"

log = logging.getLogger(__name__)


class Closable(Protocol):
    def close(self) -> None:
        """Free what it holds."""


T = TypeVar("T", bound=Closable)


class VariantSet(Generic[T]):
    """The same model at several precisions, by name; a T answers for each."""

    def __init__(
        self,
        manifest: Manifest,
        detectors: Mapping[str, T],
        report: bytes | None = None,
        page: bytes | None = None,
        streams: int = 1,
    ) -> None:
        self.manifest = manifest
        self.report = report  # the build's report.json, as it lies in the folder
        self.page = page  # its report.html
        self.streams = streams  # images that a detector takes at a time
        self._detectors = detectors

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._detectors)

    def get(self, name: str | None = None) -> tuple[str, T]:
        """The variant's own name and its detector; no name or "auto" means the default one.

        Raises VariantNotFound.
        """
        chosen = self.manifest.default if name in (None, AUTO) else name
        if chosen not in self._detectors:
            raise VariantNotFound(f"no variant {chosen!r}; there are: {', '.join(self.names)}")
        return chosen, self._detectors[chosen]

    def close(self) -> None:
        for detector in self._detectors.values():
            detector.close()


def load_variants(
    folder: Path, threads: int, throughput: bool = False, only: Collection[str] | None = None
) -> VariantSet[Detector]:
    """Every variant of a verified folder, loaded and warm; `threads` 0 takes what is allowed.

    For throughput each thread has an image of its own; otherwise all work on one. `only` names the
    variants to load where the others are served elsewhere.

    Raises BadModelFolder, EngineFailed or DeviceUnavailable.
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
    """Images that an engine of this model takes at a time; `threads` 0 takes what is allowed."""
    wide = throughput and manifest.device == "cpu"
    return (threads or usable_threads()) if wide else 1


def read_reports(folder: Path) -> tuple[bytes | None, bytes | None]:
    """What the build measured, as JSON and as a page, where the folder holds them."""
    report, page = (
        path.read_bytes() if path.is_file() else None for path in (folder / REPORT, folder / PAGE)
    )
    return report, page
