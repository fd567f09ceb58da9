"""Change a served model without a stop.

The new version is opened beside the old one and compared with it on images. Only a version that
passes takes its place, for requests that begin from then on; those that have begun end on the old
one, which is freed after the last. A version that does not pass is freed, and nothing changes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from service.errors import BadModelFolder, NotReady, Refused, ServiceError
from service.inference.comparison import Checks, Comparison, Outcome, Requirements
from service.inference.models import Model, Models, fingerprint_of
from service.manifest import verify

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """The comparison of a new version with the one that is served, and whether it took over."""

    model: str
    switched: bool
    created: str  # the new version, UTC
    replaces: str  # the old version
    compared: Comparison


class Reloader:
    """`models`: those that are served; raises NotReady before they are."""

    def __init__(self, models: Callable[[], Models], checks: Checks) -> None:
        self._models = models
        self._checks = checks

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
        if folder != model.folder and model.record is None:
            await models.get(model)  # else there would be nothing to compare with
        async with models.changing:
            outcome: Outcome = "refused"
            try:
                change = await self._try(models, model, needed, folder, switch)
                outcome = "switched" if change.switched else "offered"
                return change
            finally:
                self._checks.count(model.name, outcome)

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
            record = await models.record(model)
            compared = await asyncio.to_thread(self._checks.judge, record, new.backend, needed)
            if switch:
                models.switch(model, folder, new)
                is_used = True
        finally:
            if not is_used:
                await asyncio.to_thread(new.close, None)
        return Change(model.name, is_used, built.created, served.created, compared)


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
