"""The options that commands share, and the objects that are made from their values."""

from collections.abc import Callable
from functools import partial
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from pydantic import ValidationError

from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.errors import BadOption
from qyolo.camera.config import WatchConfig
from qyolo.cli.fields import Fields, flag, options_of, parameter, takes
from qyolo.cluster.plan import Plan
from qyolo.errors import CommandError
from qyolo.user_cache import cache_root
from service.settings import Settings
from zoo import bundle

Folder = Annotated[Path, typer.Argument(help="Model folder that `qyolo build` wrote.")]
Folders = Annotated[
    list[str] | None,
    typer.Argument(
        help="Model folders that `qyolo build` wrote, each FOLDER or NAME=FOLDER; default: "
        "QYOLO_MODELS.",
        show_default=False,
    ),
]
Camera = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Camera or video: rtsp://, http:// or the path of a file.",
        envvar="QYOLO_SOURCE",
    ),
]
Threads = Annotated[int, typer.Option(min=0, help="Inference threads; 0: the CPU quota.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Model = Annotated[
    str,
    typer.Argument(
        help="Float YOLO detector: an .onnx file as its official exporter wrote it, or a name that "
        "`qyolo models` lists."
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-on-first-use",
        help="Download a catalogue model whose checksum is not published, and record its checksum "
        "for later downloads.",
        rich_help_panel="Build",
    ),
]

WITHOUT_OPTION: Final = {
    *("model", "annotated", "threads", "timing_caches", "folder", "settings", "source"),
}


def _optional(fields: Fields) -> Fields:
    return {name: field for name, field in fields.items() if name not in WITHOUT_OPTION}


ANNOTATED: Final[Fields] = AnnotatedDataset.__pydantic_fields__  # type: ignore[attr-defined]
BUILD: Final = _optional(BuildConfig.__pydantic_fields__)  # type: ignore[attr-defined]
CLUSTER: Final = _optional(Plan.model_fields)
WATCH: Final = _optional(WatchConfig.model_fields)
# Settings that are options: of every server, and of one that is no cluster.
EVERY_SERVER: Final = ("host", "port", "threads", "throughput", "ab", "insecure")
ONE_SERVER: Final = ("collect", "shadow", "zmq")

T = TypeVar("T")


def message(exc: Exception) -> str:
    """An error in one line: a field of the configuration is named by its option."""
    if not isinstance(exc, BadOption):
        return str(exc)
    known = {**WATCH, **CLUSTER, **ANNOTATED, **BUILD}.get(exc.field)
    return f"{flag(exc.field, known)} {exc.reason}"


def file_of(model: str, trust_on_first_use: bool) -> Path:
    """The file of a model, given by its path or by its name in the catalogue."""
    from qyolo.cli.models import model_file, model_store

    return model_file(model, model_store(), trust_on_first_use)


def images_of(calibration: Path | None) -> Path:
    """The folder to calibrate on: by default the bundled images, with a hint on stderr."""
    if calibration is None:
        typer.echo(
            "qyolo: calibrating on the bundled images. About 100 images from your own "
            "camera calibrate better: --calibration DIR; --collect DIR gathers them while serving",
            err=True,
        )
    return calibration or bundle.CALIBRATION


def build_config(
    model: str,
    trust_on_first_use: bool,
    calibration: Path | None,
    images: Path | None = None,
    annotations: Path | None = None,
    **values: Any,
) -> BuildConfig:
    """The configuration of a build; raises BadOption or CommandError."""
    if (images is None) != (annotations is None):
        raise CommandError("--images and --annotations go together")
    return validated(
        BuildConfig,
        model=file_of(model, trust_on_first_use),
        calibration=images_of(calibration),
        annotated=AnnotatedDataset(images, annotations) if images and annotations else None,
        timing_caches=cache_root() / "timings",
        **values,
    )


def _settings(**values: Any) -> Settings:
    """The environment's settings, except those that the command line gives."""
    values = {name: value for name, value in values.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as exc:
        error = _first_error(exc)
        if error.field in values:
            raise error from exc
        reason = exc.errors()[0]["msg"]  # without the value, which may be a secret
        raise CommandError(f"QYOLO_{error.field.upper()}: {reason}") from exc


def _plan(folder: Path, **values: Any) -> Plan:
    settings = _settings(**{name: values.pop(name) for name in EVERY_SERVER})
    return validated(Plan, folder=folder, settings=settings, **values)


def validated(make: Callable[..., T], **values: Any) -> T:
    """A value of the given options; raises BadOption for the first that is wrong."""
    try:
        return make(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as exc:
        raise _first_error(exc) from exc


def _first_error(exc: ValidationError) -> BadOption:
    error = exc.errors()[0]
    return BadOption(str(error["loc"][0]), f"{error['input']}: {error['msg']}")


def _server(*names: str) -> dict[str, Parameter]:
    return options_of(
        {name: Settings.model_fields[name] for name in names}, "Server", env_prefix="QYOLO_"
    )


takes_config = takes(
    "config",
    {
        "model": parameter("model", Model, bundle.NAME),
        **options_of(BUILD, "Build"),
        **options_of(ANNOTATED, "Build"),
        "trust_on_first_use": parameter("trust_on_first_use", Trust, False),
    },
    build_config,
)
takes_settings = takes("settings", _server(*EVERY_SERVER, *ONE_SERVER), _settings)
takes_plan = takes(
    "plan",
    {
        "folder": parameter("folder", Folder),
        **_server(*EVERY_SERVER),
        **options_of(CLUSTER, "Cluster"),
    },
    _plan,
)
takes_watch = takes(
    "config",
    {"source": parameter("source", Camera), **options_of(WATCH)},
    partial(validated, WatchConfig),
)
takes_annotated = takes("annotated", options_of(ANNOTATED, required=True), AnnotatedDataset)
