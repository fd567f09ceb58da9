"""Where the model folder comes from."""

from pathlib import Path
from typing import Protocol

from service.readiness import ReportProgress


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
