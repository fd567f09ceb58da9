"""Build a served model again, calibrated on the images that clients have sent.

The build is a `ModelSource`, so it may run in a process of its own; the new version is then checked
and served as by a reload.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from service.errors import Refused, ServiceError
from service.inference.comparison import Requirements
from service.inference.models import Model
from service.inference.reload import Change, Reloader
from service.lifecycle import ModelSource
from service.progress import Progress

MIN_IMAGES: Final = 16  # fewer describe no camera

State = Literal["idle", "building", "comparing", "offered", "switched", "failed"]
# (a model, a folder of images) -> its build that is calibrated on them; it may write into the
# folder above that of the images. Raises ServiceError.
Rebuild = Callable[[Model, Path], ModelSource]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Status:
    """How far a recalibration is."""

    state: State = "idle"
    progress: Progress | None = None
    detail: str | None = None  # why it failed
    change: Change | None = None


class Recalibration:
    """One at a time.

    `images_of`: the folder of a model's collected images, if some are collected. `rebuilds`: by the
    names of the models whose float model is known.
    """

    def __init__(
        self,
        reloader: Reloader,
        images_of: Callable[[str], Path | None],
        rebuilds: Mapping[str, Rebuild],
    ) -> None:
        self._reloader = reloader
        self._images_of = images_of
        self._rebuilds = rebuilds
        self._statuses: dict[str, Status] = {}  # by model
        self._offered: dict[str, Path] = {}
        self._task: asyncio.Task[None] | None = None
        self._source: ModelSource | None = None
        self._is_closed = False

    def status(self, model: Model) -> Status:
        """Of the last recalibration of this model."""
        return self._statuses.get(model.name, Status())

    def start(self, model: Model, needed: Requirements, switch: bool) -> None:
        """Begin one, or with `switch` serve the one that is offered; raises Refused."""
        name = model.name
        rebuild = self._rebuilds.get(name)
        if rebuild is None:
            raise Refused(
                f"the float model of {name} is not known here: `qyolo up MODEL` knows it, and "
                f"QYOLO_FLOAT_MODELS={name}=FILE.onnx names it to a server of its folder. Or build "
                "with --calibration DIR and --out FOLDER, then `qyolo reload`"
            )
        if self._task is not None and not self._task.done():
            raise Refused("a recalibration is in progress")
        images = self._images_of(name)
        if images is None:
            raise Refused("no images are collected: start the server with --collect DIR")
        offered = self._offered.pop(name, None)
        if not switch or offered is None:
            offered, count = None, len(_collected(images))
            if count < MIN_IMAGES:
                raise Refused(f"{count} images are collected, of at least {MIN_IMAGES}")
        self._statuses[name] = Status("building" if offered is None else "comparing")
        work = self._run(model, needed, switch, rebuild, images, offered)
        self._task = asyncio.create_task(work)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At the end of the block a build is cancelled."""
        try:
            yield
        finally:
            self._is_closed = True
            if self._source is not None:
                await asyncio.to_thread(self._source.cancel)

    async def _run(
        self,
        model: Model,
        needed: Requirements,
        switch: bool,
        rebuild: Rebuild,
        images: Path,
        folder: Path | None,
    ) -> None:
        try:
            if folder is None:
                folder = await asyncio.to_thread(self._build, rebuild, model, images)
            self._statuses[model.name] = Status("comparing")
            change = await self._reloader.reload(model, needed, folder, switch)
        except Exception as exc:
            expected = isinstance(exc, ServiceError)
            log.error("the recalibration failed: %s", exc, exc_info=None if expected else exc)
            why = str(exc) if expected else "an unexpected error; the log says which"
            self._statuses[model.name] = Status("failed", detail=why)
            return
        if not switch:
            self._offered[model.name] = folder
        self._statuses[model.name] = Status("switched" if switch else "offered", change=change)

    def _build(self, rebuild: Rebuild, model: Model, collected: Path) -> Path:
        """In a thread; calibrates on a copy, since the images change while the build reads them."""
        with TemporaryDirectory(prefix="qyolo-") as home:
            images = Path(home) / "images"
            images.mkdir()
            for path in _collected(collected):
                shutil.copy(path, images)
            self._source = source = rebuild(model, images)
            if self._is_closed:
                source.cancel()
            return source.folder(partial(self._report, model.name))

    def _report(self, name: str, progress: Progress) -> None:
        self._statuses[name] = Status("building", progress)


def _collected(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jpg"))
