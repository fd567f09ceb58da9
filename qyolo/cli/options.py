"""The options that commands share, and the values that groups of them make."""

from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.errors import BadOption, QuantizerError
from qyolo.cli.fields import Fields, first_error, flag, options_of, takes, takes_each
from qyolo.cluster.plan import Plan
from qyolo.user_cache import cache_root
from service.settings import Settings
from zoo import bundle

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
        help="Take a catalogue model without a known checksum, and expect what came ever after.",
        rich_help_panel="Build",
    ),
]
Folder = Annotated[Path, typer.Argument(help="Model folder that `qyolo build` wrote.")]
Threads = Annotated[int, typer.Option(min=0, help="Inference threads; 0: the CPU quota.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

SERVER: Final = ("host", "port", "threads", "throughput", "collect", "ab", "shadow", "insecure")
NO_OPTIONS: Final = ("model", "annotated", "threads", "timing_caches")  # of a build

_annotated: Fields = AnnotatedDataset.__pydantic_fields__
_build: Fields = BuildConfig.__pydantic_fields__
_server: Fields = Settings.model_fields
_plan: Fields = Plan.model_fields


def flag_of(field: str) -> str:
    """The option that sets a field of a config, of settings or of a plan."""
    fields = {**_server, **_plan, **_annotated, **_build}
    return flag(field, fields[field]) if field in fields else f"--{field.replace('_', '-')}"


def model_file(model: str, trust_on_first_use: bool) -> Path:
    """The file of a model that is given by its path or by its name in the catalogue."""
    from qyolo.cli.models import model_file as find
    from qyolo.cli.models import model_store

    return find(model, model_store(), trust_on_first_use)


def images_of(calibration: Path | None) -> Path:
    """The folder to calibrate on: the bundled images, with a hint on stderr, if none is named."""
    if calibration is None:
        typer.echo(
            "qyolo: calibrating on the pictures that come with it. About 100 images from your own "
            "camera calibrate better: --calibration DIR; --collect DIR gathers them while serving",
            err=True,
        )
    return calibration or bundle.CALIBRATION


def make_config(
    model: str,
    trust_on_first_use: bool,
    calibration: Path | None,
    images: Path | None,
    annotations: Path | None,
    keep_float: list[str] | None,
    **others: Any,
) -> BuildConfig:
    """What to build from what; a catalogue model is downloaded if it is not there."""
    if (images is None) != (annotations is None):
        raise QuantizerError("--images and --annotations go together")
    try:
        return BuildConfig(
            model=model_file(model, trust_on_first_use),
            calibration=images_of(calibration),
            annotated=AnnotatedDataset(images, annotations) if images and annotations else None,
            keep_float=tuple(keep_float or ()),
            timing_caches=cache_root() / "timings",
            **others,
        )
    except ValidationError as exc:
        raise first_error(exc) from exc


def make_settings(**options: Any) -> Settings:
    """The environment's settings, except where an option is given."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as exc:
        error = first_error(exc)
        if error.field in given:
            raise error from exc
        raise QuantizerError(f"QYOLO_{error.field.upper()}: {error.reason}") from exc


def make_plan(folder: Path, max_replicas: int | None, variants: list[str] | None, **options: Any) -> Plan:
    settings = make_settings(**{name: options.pop(name) for name in _cluster_server})


def _named(name: str, annotation: object, default: object) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
