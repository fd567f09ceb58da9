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
from service.vision.agreement import MIN_AGREEMENT, agreement
from service.vision.detections import Detections
from service.vision.image import SUFFIXES
from service.vision.postprocess import Query

MAX_IMAGES: Final = 16
FP32: Final = "fp32"

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
    agreement: float | None  # of both, 0..1; None: nothing could be compared
    # Of each with the new version's fp32, if both are builds of the same float model.
    served_with_fp32: float | None
    new_with_fp32: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Agreements, 0..1, as in `Change`."""

    images: int
    boxes: int
    agreement: float
    served_with_fp32: float | None
    new_with_fp32: float | None

    def allows(self, least: float) -> bool:
        """Whether the new version may be served.

        Of the same float model, the one that is closer to fp32 is better, however far apart the
        two are: that is what another calibration is for.
        """
        if self.served_with_fp32 is None or self.new_with_fp32 is None:
            return self.agreement >= least
        return self.new_with_fp32 >= min(least, self.served_with_fp32)

    @property
    def reference(self) -> str:
        """What the new version is judged by, and how far it agrees with it."""
        if self.new_with_fp32 is None:
            return f"the served one to {self.agreement:.3f}"
        return f"fp32 to {self.new_with_fp32:.3f}, the served one to {self.served_with_fp32:.3f}"


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
        tried: dict[str, str] = {}
        incomplete: dict[str, str] = {}
        while True:
            await asyncio.sleep(every_s)
            try:
                models = self._models()
            except NotReady:
                continue
            for model in models:
                version = model.version
                found = await asyncio.to_thread(fingerprint_of, model.folder)
                if version is None or found in ("", version.fingerprint, tried.get(model.name)):
                    continue
                try:
                    await asyncio.to_thread(verify, model.folder)
                except BadModelFolder as exc:  # perhaps it is still being copied
                    if incomplete.get(model.name) != found:
                        log.warning("%s is not reloaded yet: %s", model.name, exc)
                    incomplete[model.name] = found
                    continue
                tried[model.name] = found
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
            if compared is not None and not compared.allows(needed.min_agreement):
                raise Refused(
                    f"the new version agrees with {compared.reference} on {compared.images} "
                    f"images, less than {needed.min_agreement:g}: allow it with min_agreement=0, "
                    "or --min-agreement 0"
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
            boxes=0 if compared is None else compared.boxes,
            agreement=None if compared is None else compared.agreement,
            served_with_fp32=None if compared is None else compared.served_with_fp32,
            new_with_fp32=None if compared is None else compared.new_with_fp32,
        )

    async def _compare(self, name: str, old: Version, new: Version) -> Comparison | None:
        """None where there are no images, or the old version's engine fails."""
        paths = await asyncio.to_thread(_some, self._images_of(name))
        with old as served:
            return await asyncio.to_thread(_compared, served, new.backend, paths, self._query)


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


def _compared(
    old: InferenceBackend, new: InferenceBackend, paths: Sequence[Path], query: Query
) -> Comparison | None:
    before, after = old.variants.manifest, new.variants.manifest
    has_fp32 = before.source_sha256 == after.source_sha256 and FP32 in new.variants.names
    found: list[tuple[Detections, Detections, Detections | None]] = []
    for path in paths:
        try:
            data = path.read_bytes()
            served = old.examine(data, query)
        except (EngineFailed, NotReady):
            return None
        except (OSError, ServiceError):  # no image
            continue
        try:
            fp32 = new.examine(data, query, FP32) if has_fp32 else None
            found.append((served, new.examine(data, query), fp32))
        except ServiceError as exc:
            raise Refused(f"the new version fails on an image: {exc}") from exc
    if not found:
        return None
    both = agreement([(served, ours) for served, ours, _ in found])
    return Comparison(
        images=both.images,
        boxes=both.boxes_a + both.boxes_b,
        agreement=round(1 - both.drop, 4),
        served_with_fp32=_with([(fp32, served) for served, _, fp32 in found]),
        new_with_fp32=_with([(fp32, ours) for _, ours, fp32 in found]),
    )


def _with(pairs: Sequence[tuple[Detections | None, Detections]]) -> float | None:
    known = [(fp32, boxes) for fp32, boxes in pairs if fp32 is not None]
    return round(1 - agreement(known).drop, 4) if known else None


def _some(folders: Sequence[Path]) -> list[Path]:
    """Images of the first folder that has any."""
    for folder in folders:
        paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
        if paths:
            return random.Random(0).sample(paths, min(MAX_IMAGES, len(paths)))
    return []
