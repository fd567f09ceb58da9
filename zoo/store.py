"""The official models on this disk: <folder>/<file name>, verified at each use.

For a model without a published checksum, <file name>.sha256 keeps that of the first download.
"""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from quantizer.errors import UnsupportedModel
from quantizer.versions import sha256_of
from service.progress import ReportProgress
from zoo.catalogue import Entry
from zoo.download import MAX_SIZE, download
from zoo.errors import Distrusted


@dataclass(frozen=True, slots=True)
class ModelStore:
    folder: Path
    mirror: str | None = None  # base address to use in place of the publisher's

    def path_of(self, entry: Entry) -> Path:
        return self.folder / entry.file_name

    def holds(self, entry: Entry) -> bool:
        return self.path_of(entry).is_file()

    def address_of(self, entry: Entry) -> str:
        if self.mirror is None:
            return str(entry.address)
        return f"{self.mirror.rstrip('/')}/{entry.file_name}"

    def take(self, entry: Entry, trust_on_first_use: bool, progress: ReportProgress) -> Path:
        """The verified file; downloads it if it is missing.

        Raises UnsupportedModel for an entry without an ONNX file, Distrusted, DownloadFailed.
        """
        if entry.export is not None:
            raise UnsupportedModel(
                f"{entry.publisher} publishes {entry.name} only as a pickle, which can run code: "
                f"it is never loaded. Export it in a trusted environment: {entry.export} "
                f"(the weights: {entry.address}), then pass the .onnx file"
            )
        expected = entry.sha256 or self._recorded(entry)
        if expected is None and not trust_on_first_use:
            raise Distrusted(
                f"{entry.file_name} has no published checksum: pass --trust-on-first-use to accept "
                "the file at its address, and to require the same file from then on"
            )
        path = self.path_of(entry)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if path.is_file():
                digest = _verify(path, entry, expected)
            else:
                size = entry.bytes or MAX_SIZE
                part = download(self.address_of(entry), path, progress, size)
                try:
                    digest = _verify(part, entry, expected)
                except Distrusted:
                    part.unlink()
                    raise
                part.replace(path)
            if expected is None:
                self._record(entry, digest)
        return path

    def _record_of(self, entry: Entry) -> Path:
        return self.folder / f"{entry.file_name}.sha256"

    def _recorded(self, entry: Entry) -> str | None:
        record = self._record_of(entry)
        return record.read_text().split()[0] if record.is_file() else None

    def _record(self, entry: Entry, digest: str) -> None:
        record = self._record_of(entry)
        part = record.with_name(f"{record.name}.part")
        part.write_text(f"{digest}  {entry.file_name}\n")  # the format of sha256sum -c
        part.replace(record)


def _verify(file: Path, entry: Entry, expected: str | None) -> str:
    """The SHA-256 of a file; raises Distrusted if another one is expected."""
    digest = sha256_of(file)
    if expected is not None and digest != expected:
        raise Distrusted(f"{entry.file_name} has the SHA-256 {digest}, not {expected}: not used")
    return digest
