"""The options of a build, once for every command that builds: from the command line to a Recipe."""

from pathlib import Path

import typer

from quantizer.config import MIN_SQNR, AnnotatedDataset, BuildConfig
from quantizer.errors import QuantizerError
from qyolo.cli import options
from qyolo.cli.shared_options import in_place_of
from zoo import bundle


def config_from(
    model: options.Model = bundle.NAME,
    calibration: options.Calibration = None,
    size: options.Size = 640,
    ranges: options.Ranges = "uh",
    symmetric: options.Symmetric = False,
    bias_correction: options.BiasCorrection = True,
    head: options.Head = None,
    preprocess: options.HowPrepared = None,
    classes: options.Classes = None,
    keep_float: options.KeepFloat = None,
    min_sqnr: options.MinSqnr = MIN_SQNR,
    max_drop: options.MaxDrop = None,
    images: options.AnnotatedImages = None,
    annotations: options.Annotations = None,
    default: options.ServedDefault = "auto",
    device: options.OnDevice = "auto",
    runtime: options.WithRuntime = None,
    workspace: options.Workspace = None,
    trust_on_first_use: options.Trust = False,
) -> BuildConfig:
    """What to build from what; a named model is fetched if it is not here."""
    return BuildConfig(
        model=file_of(model, trust_on_first_use),
        calibration=pictures(calibration),
        size=size,
        ranges=ranges,
        symmetric=symmetric,
        bias_correction=bias_correction,
        head=head,
        preprocess=preprocess,
        classes=classes,
        keep_float=tuple(keep_float or ()),
        min_sqnr=min_sqnr,
        max_drop=max_drop,
        annotated=_annotated(images, annotations),
        default=default,
        device=device,
        runtime=runtime,
        workspace_mib=workspace,
        timing_caches=options.cache_root() / "timings",
    )


takes_config = in_place_of("config", config_from)


def file_of(model: str, trust_on_first_use: bool) -> Path:
    """The file of a model that is given by its path or by its name in the catalogue."""
    from qyolo.cli.models import model_file, user_store

    return model_file(model, user_store(), trust_on_first_use)


def pictures(calibration: Path | None) -> Path:
    """The folder to calibrate on; if none is named, the pictures in the box, and a word of it."""
    if calibration is None:
        typer.echo(
            "qyolo: calibrating on the pictures that come with it. About 100 images from your own "
            "camera calibrate better: --calibration DIR; --collect DIR gathers them while serving",
            err=True,
        )
    return calibration or bundle.CALIBRATION


def _annotated(images: Path | None, annotations: Path | None) -> AnnotatedDataset | None:
    if images is None and annotations is None:
        return None
    if images is None or annotations is None:
        raise QuantizerError("--images and --annotations go together")
    return AnnotatedDataset(images, annotations)
