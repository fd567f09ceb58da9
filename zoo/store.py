"""The official models on this disk: <folder>/<file name>, checked every time it is taken.

Where no checksum is published, the first one seen is kept beside it, if the user says so.
"""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from quantizer.errors import UnsupportedModel
from quantizer.versions import sha256_of
from service.progress import ReportProgress
from zoo.catalogue import Entry
from zoo.download import download
from zoo.errors import Distrusted


@dataclass(frozen=True, slots=True)
class ModelStore:
    folder: Path
    mirror: str | None = None  # takes the place of everything before the file names

    def path_of(self, entry: Entry) -> Path:
        return self.folder / entry.file_name

    def holds(self, entry: Entry) -> bool:
        return self.path_of(entry).is_file()

    def address_of(self, entry: Entry) -> str:
        if self.mirror is None:
            return str(entry.address)
        return f"{self.mirror.rstrip('/')}/{entry.file_name}"

    def take(self, entry: Entry, trust_on_first_use: bool, progress: ReportProgress) -> Path:
        """The checked file, downloaded where it is absent.

        Raises UnsupportedModel for an entry that has no ONNX file, Distrusted, DownloadFailed.
        """
        if entry.export is not None:
            raise UnsupportedModel(
                f"{entry.publisher} publishes {entry.name} as a pickle only, which is code and is "
                f"never loaded here. Export it where you trust it: {entry.export} "
                f"(the weights: {entry.address}), then pass the .onnx file"
            )
        known = entry.sha256 or self._recorded(entry)
        if known is None and not trust_on_first_use:
            raise Distrusted(
                f"no checksum of {entry.file_name} is known for certain: pass "
                "--trust-on-first-use to take what the address gives, and hold it to that "
                "from then on"
            )
        path = self.path_of(entry)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if path.is_file():
                found = self._checked(path, path, known)
            else:
                part = download(self.address_of(entry), path, progress)
                found = self._checked(part, path, known)
                part.replace(path)
            if known is None:
                self._record(entry, found)
        return path

    def _checked(self, file: Path, path: Path, known: str | None) -> str:
        """The file's SHA-256, which is the known one where there is one."""
        found = sha256_of(file)
        if known is None or found == known:
            return found
        if file != path:  # just downloaded
            file.unlink()
        raise Distrusted(f"{path.name} has the SHA-256 {found}, {known} was expected: not used")

    def _record_of(self, entry: Entry) -> Path:
        return self.folder / f"{entry.file_name}.sha256"

    def _recorded(self, entry: Entry) -> str | None:
        record = self._record_of(entry)
        return record.read_text().split()[0] if record.is_file() else None

    def _record(self, entry: Entry, digest: str) -> None:
        record = self._record_of(entry)
        part = record.with_name(f"{record.name}.part")
        part.write_text(f"{digest}  {entry.file_name}\n")  # as sha256sum -c reads it
        part.replace(record)
