"""The commands that serve: serve, up, cluster; and watch, which asks a server."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from quantizer.config import BuildConfig
from qyolo.camera.config import WatchConfig
from qyolo.cli.options import (
    Folders,
    file_of,
    message,
    takes_config,
    takes_plan,
    takes_settings,
    takes_watch,
)
from qyolo.cluster.plan import Plan
from qyolo.errors import CommandError
from qyolo.user_cache import cache_root
from service.observability.logs import set_up_logs
from service.progress import ReportProgress
from service.settings import Settings

if TYPE_CHECKING:  # `qyolo --help` need not load them
    from qyolo.building import BuildSource
    from service.inference.models import Model
    from service.recalibration import Rebuild

BEHIND: Final = 10  # niceness of a build beside a server, which needs the processor first


@takes_settings
def serve(settings: Settings, folders: Folders = None) -> None:
    """Serve model folders over REST.

    The first model answers requests that name none.
    """
    from qyolo.serving import run_server
    from service.inference.models import ModelFolder
    from service.lifecycle import FolderSource
    from service.manifest import verify

    rebuilds = _rebuilds(settings)
    listed = tuple(folders or settings.models)
    if not listed:
        raise CommandError("name a model folder: qyolo serve FOLDER, or QYOLO_MODELS=FOLDER")
    models = [ModelFolder.parse(text) for text in listed]
    for model in models:
        verify(model.folder)
    more = settings.model_copy(update={"models": listed[1:]})
    source = FolderSource(models[0].folder)
    run_server(more, source, name=models[0].name, rebuilds=rebuilds)


@takes_config
@takes_settings
def up(config: BuildConfig, settings: Settings) -> None:
    """Build MODEL, unless the cache has the build, then serve it, and QYOLO_MODELS beside it.

    The server listens at once; /readyz reports the build's progress. The build runs in a process
    of its own.
    """
    from quantizer.cache import build_key
    from qyolo.building import BuildSource
    from qyolo.cli.progress import progress_bars
    from qyolo.rebuilding import default_again
    from qyolo.serving import run_server
    from service.inference.models import ModelFolder
    from service.manifest import verify

    for text in settings.models:
        verify(ModelFolder.parse(text).folder)
    source = BuildSource(config, cache_root(), build_key(config), progress_bars, message)

    def rebuild(model: "Model", images: Path) -> "BuildSource":
        default = default_again(model.manifest)
        return _build_behind(replace(config, calibration=images, default=default))

    run_server(settings, source, rebuilds=_rebuilds(settings) | {config.model.stem: rebuild})


def _rebuilds(settings: Settings) -> "dict[str, Rebuild]":
    """Builds of the folders whose float model the settings name."""
    from qyolo.rebuilding import config_again
    from service.inference.models import ModelFolder

    def rebuild(file: Path, model: "Model", images: Path) -> "BuildSource":
        return _build_behind(config_again(model, file, images))

    named = [ModelFolder.parse(text) for text in settings.float_models]
    files = [(each.name, file_of(str(each.folder), False)) for each in named]
    return {name or file.stem: partial(rebuild, file) for name, file in files}


def _build_behind(config: BuildConfig) -> "BuildSource":
    from quantizer.cache import build_key
    from qyolo.building import BuildSource

    return BuildSource(config, cache_root(), build_key(config), _no_bars, message, BEHIND)


def _no_bars() -> AbstractContextManager[ReportProgress]:
    return nullcontext(lambda progress: None)


@takes_plan
def cluster(
    plan: Plan,
    address: Annotated[
        str, typer.Option(help="Ray cluster; auto: the one that this machine is a node of.")
    ] = "auto",
) -> None:
    """Serve a model folder on a Ray cluster, or update what is served there.

    Needs the extra cluster. Each variant that is served has replicas of its own. Returns when all
    of them are ready; they keep running without this process.
    """
    try:
        from qyolo.cluster.deploy import deploy
    except ModuleNotFoundError as exc:
        raise CommandError(
            "a cluster needs the extra cluster: pip install 'qyolo[cluster]'"
        ) from exc
    deploy(plan, address)


@takes_watch
def watch(config: WatchConfig) -> None:
    """Watch a camera with a qyolo server; report the objects that appear and leave.

    Needs the extra camera. Prints each event as a line of JSON. With --mqtt publishes events and
    states, which Home Assistant discovers. Shrinks the newest frame to the model's size, and drops
    those that the server has no time for. Connects again whatever fails; ends at the end of a file.
    """
    try:
        from qyolo.camera.watch import watch as run
    except ModuleNotFoundError as exc:
        raise CommandError("watching needs the extra camera: pip install 'qyolo[camera]'") from exc
    set_up_logs("info", "human")
    run(config)
