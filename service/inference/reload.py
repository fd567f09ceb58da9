"""Change a served model without a stop.

The new version is opened beside the old one and compared with it on images. Only a version that
passes takes its place, for requests that begin from then on; those that have begun end on the old
one, which is freed after the last. A version that does not pass is freed, and nothing changes.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from service.errors import BadModelFolder, EngineFailed, NotReady, Refused, ServiceError
from service.inference.backend import InferenceBackend
from service.inference.models import Model, Models, Version, fingerprint_of
from service.manifest import verify
from service.vision.agreement import Agreement, agreement
from service.vision.image import SUFFIXES
from service.vision.postprocess import Query

# As much as the accuracy gate of a build lets int8 differ from fp32.
MIN_AGREEMENT: Final = 0.85
MAX_IMAGES: Final = 16

Outcome = Literal["switched", "offered", "refused"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a new version must fulfil."""

    min_agreement: float = MIN_AGREEMENT
    new_classes: bool = False  # it may have other classes; their boxes are not compared


@dataclass(frozen=True, slots=True)
class Change:
    """The comparison of a new version with the one that is served, and whether it took over."""

    model: str
    switched: bool
    created: str  # the new version, UTC
    replaces: str  # the old version
    images: int
    boxes: int  # of both
    agreement: float | None  # 0..1; None: nothing could be compared


class Reloader:
    """`models`: those that are served; raises NotReady before they are.

    `images_of`: folders of images for a model, in order of preference. `count` is told the
    outcome for a model.
    """

    def __init__(
        self,
        models: Callable[[], Models],
        images_of: Callable[[str], Sequence[Path]],
        query: Query,
        count: Callable[[str, Outcome], None],
    ) -> None:
        self._models = models
        self._images_of = images_of
        self._query = query
        self._count = count

    async def reload(
        self,
        model: Model,
        needed: Requirements,
        folder: Path | None = None,
        switch: bool = True,
    ) -> Change:
        """Serve what is in the model's folder now, or in another one.

        Without `switch` it is only compared. Raises Refused, and goes on though the caller is
        cancelled.
        """
        work = self._reload(model, needed, folder or model.folder, switch)
        task = asyncio.create_task(work)
        task.add_done_callback(_end)
        return await asyncio.shield(task)

    async def watch(self, every_s: float) -> None:
        """Reload each model whose folder has changed; a version that is refused is tried once."""
        told: dict[str, str] = {}
        while True:
            await asyncio.sleep(every_s)
            try:
                models = self._models()
            except NotReady:
                continue
            for model in models:
                version = model.version
                found = await asyncio.to_thread(fingerprint_of, model.folder)
                if version is None or found in ("", version.fingerprint, told.get(model.name)):
                    continue
                try:
                    await asyncio.to_thread(verify, model.folder)
                except BadModelFolder as exc:  # perhaps it is still being copied
                    if told.get(f"{model.name} incomplete") != found:
                        log.warning("%s is not reloaded yet: %s", model.name, exc)
                    told[f"{model.name} incomplete"] = found
                    continue
                told[model.name] = found
                try:
                    await self.reload(model, Requirements())
                except Exception as exc:
                    unexpected = None if isinstance(exc, ServiceError) else exc
                    log.error("%s is not reloaded: %s", model.name, exc, exc_info=unexpected)

    async def _reload(
        self, model: Model, needed: Requirements, folder: Path, switch: bool
    ) -> Change:
        models = self._models()
        async with models.changing:
            outcome: Outcome = "refused"
            try:
                change = await self._try(models, model, needed, folder, switch)
                outcome = "switched" if change.switched else "offered"
                return change
            finally:
                self._count(model.name, outcome)

    async def _try(
        self, models: Models, model: Model, needed: Requirements, folder: Path, switch: bool
    ) -> Change:
        served = model.manifest
        try:
            new = await asyncio.to_thread(models.open, model, folder)
        except Exception as exc:
            expected = isinstance(exc, ServiceError)
            log.error("%s: %s cannot be loaded", model.name, folder, exc_info=exc)
            why = str(exc) if expected else type(exc).__name__
            raise Refused(f"the new version cannot be loaded: {why}") from exc
        is_used = False
        try:
            built = new.backend.variants.manifest
            has_new_classes = built.class_names != served.class_names
            if has_new_classes and not needed.new_classes:
                raise Refused(
                    f"the new version has other classes ({len(built.class_names)}, the served one "
                    f"{len(served.class_names)}): allow them with new_classes=true, "
                    "or --new-classes"
                )
            compared = None
            if model.version is not None and not has_new_classes:
                compared = await self._compare(model.name, model.version, new)
            if compared is not None and 1 - compared.drop < needed.min_agreement:
                raise Refused(
                    f"the new version agrees with the served one to {1 - compared.drop:.3f} on "
                    f"{compared.images} images, less than {needed.min_agreement:g}: allow it with "
                    "min_agreement=0, or --min-agreement 0"
                )
            if switch:
                models.switch(model, folder, new)
                is_used = True
        finally:
            if not is_used:
                await asyncio.to_thread(new.close, None)
        return Change(
            model.name,
            is_used,
            built.created,
            served.created,
            images=0 if compared is None else compared.images,
            boxes=0 if compared is None else compared.boxes_a + compared.boxes_b,
            agreement=None if compared is None else round(1 - compared.drop, 4),
        )

    async def _compare(self, name: str, old: Version, new: Version) -> Agreement | None:
        """None where there are no images, or the old version's engine fails."""
        paths = await asyncio.to_thread(_some, self._images_of(name))
        with old as served:
            return await asyncio.to_thread(_agreement, served, new.backend, paths, self._query)


def _end(task: "asyncio.Task[Change]") -> None:
    """Whether or not the caller still waits for its error."""
    if not task.cancelled():
        task.exception()


@asynccontextmanager
async def watching(reloader: Reloader, every_s: float) -> AsyncIterator[None]:
    """Watch the folders inside the block; 0 seconds: do not."""
    task = asyncio.create_task(reloader.watch(every_s)) if every_s else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


def _agreement(
    old: InferenceBackend, new: InferenceBackend, paths: Sequence[Path], query: Query
) -> Agreement | None:
    pairs = []
    for path in paths:
        try:
            data = path.read_bytes()
            before = old.examine(data, query)
        except (EngineFailed, NotReady):
            return None
        except (OSError, ServiceError):  # no image
            continue
        try:
            pairs.append((before, new.examine(data, query)))
        except ServiceError as exc:
            raise Refused(f"the new version fails on an image: {exc}") from exc
    return agreement(pairs) if pairs else None


def _some(folders: Sequence[Path]) -> list[Path]:
    """Images of the first folder that has any."""
    for folder in folders:
        paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
        if paths:
            return random.Random(0).sample(paths, min(MAX_IMAGES, len(paths)))
    return []
