"""The commands that use a model and measure it: detect, eval, study, bench."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from quantizer.config import AnnotatedDataset, BuildConfig
from qyolo.cli.fields import takes_fields
from qyolo.cli.options import (
    BUILD,
    AsJson,
    Folder,
    Model,
    Threads,
    Trust,
    build_config,
    takes_annotated,
)
from qyolo.errors import CommandError
from qyolo.user_cache import cache_root
from service.vision.postprocess import Query
from zoo import bundle

DEMO = Path("qyolo-demo")  # where --demo writes its pictures


def detect(
    folder: Annotated[
        Path | None, typer.Argument(help="Model folder that `qyolo build` wrote.")
    ] = None,
    images: Annotated[list[Path] | None, typer.Argument(help="Image files.")] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Use the bundled detector and its sample images."),
    ] = False,
    variant: Annotated[
        str | None,
        typer.Option(help="fp32, bf16, fp16, fp8 or int8; default: the folder's default."),
    ] = None,
    conf: Annotated[float, typer.Option(min=0, max=1, help="Score threshold.")] = Query().conf,
    iou: Annotated[float, typer.Option(min=0, max=1, help="NMS threshold.")] = Query().iou,
    save: Annotated[
        Path | None,
        typer.Option(help="Folder for pictures with the boxes drawn; --demo: qyolo-demo."),
    ] = None,
    threads: Threads = 0,
) -> None:
    """Print the boxes of each image as a line of JSON, as the server would answer."""
    from qyolo.detect import ImageFailure, detect_images

    if demo:
        if folder is not None:
            raise CommandError("--demo uses its own model folder and images: name none")
        folder, images, save = _demo_folder(), sorted(bundle.SAMPLES.glob("*.jpg")), save or DEMO
    if folder is None or not images:
        raise CommandError("name a model folder and images, or try --demo")
    query = Query(conf=conf, iou=iou)
    failures = 0
    for answer in detect_images(folder, images, variant, query, save, threads):
        typer.echo(answer.model_dump_json())
        failures += isinstance(answer, ImageFailure)
    if demo:
        typer.echo(f"qyolo: pictures with boxes are in {save}", err=True)
    if failures:
        raise CommandError(f"{failures} of {len(images)} images gave no boxes")


def _demo_folder() -> Path:
    """The default detector as `qyolo up` would build it, from the cache or built now."""
    from quantizer.build import build
    from quantizer.cache import build_key
    from qyolo.cli.progress import progress_bars
    from service.folder_cache import obtain

    config = BuildConfig(bundle.model(), bundle.CALIBRATION)
    with progress_bars() as progress:
        return obtain(
            cache_root(), build_key(config), lambda folder: build(config, folder, progress)
        )


@takes_annotated
def evaluate(
    folder: Folder,
    annotated: AnnotatedDataset,
    per_class: Annotated[
        bool,
        typer.Option("--per-class", help="Show each class as well; JSON always contains them."),
    ] = False,
    as_json: AsJson = False,
    threads: Threads = 0,
) -> None:
    """Measure the COCO AP of every variant, and how far int8 agrees with fp32."""
    from quantizer.evaluation.accuracy import evaluate as run
    from qyolo.cli.progress import progress_bars
    from qyolo.cli.tables import show_classes, show_evaluation

    with progress_bars() as progress:
        result = run(folder, annotated.images, annotated.annotations, threads, progress)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result), indent=2))
        return
    show_evaluation(result)
    if per_class:
        show_classes(result)


@takes_annotated
@takes_fields(BUILD, "Build")
def study(
    annotated: AnnotatedDataset,
    calibration: Path | None,
    size: str | None,
    model: Model = bundle.NAME,
    bits: Annotated[
        list[int] | None, typer.Option(min=2, max=8, help="Widths to study; default: 8, 6 and 4.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for study.md, study.json and study.svg.")
    ] = Path("qyolo-study"),
    trust_on_first_use: Trust = False,
    threads: Threads = 0,
) -> None:
    """Repeat the tables of the Q-YOLO paper on MODEL, in simulation.

    Measures COCO AP with ranges by MinMax, percentile, MSE, entropy and UH, symmetric and
    asymmetric, of weights, activations and both, at 8, 6 and 4 bits.
    """
    from quantizer.study.settings import ALL_BITS, settings
    from quantizer.study.study import study as run
    from qyolo.cli.progress import progress_bars
    from qyolo.cli.study_report import as_markdown, write_study
    from service.engines.cpu import usable_threads

    config = build_config(model, trust_on_first_use, calibration, size=size)
    with progress_bars() as progress:
        result = run(
            config.model,
            config.calibration,
            annotated,
            config.size,
            threads or usable_threads(),
            list(settings(bits or ALL_BITS)),
            progress,
        )
    typer.echo(as_markdown(result))
    written = ", ".join(str(path) for path in write_study(result, out))
    typer.echo(f"qyolo: wrote {written}", err=True)


def bench(
    folder: Folder,
    image: Annotated[
        Path | None, typer.Option(help="Image to time; default: noise of 640x480.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds over all variants.")] = 200,
    as_json: AsJson = False,
    threads: Threads = 0,
) -> None:
    """Measure the latency of every variant, interleaved in one run."""
    from qyolo.bench import bench as run
    from qyolo.bench import noise
    from qyolo.cli.progress import progress_bars
    from qyolo.cli.tables import show_bench
    from service.vision.image import MAX_PIXELS, decode_image

    pixels = noise() if image is None else decode_image(image.read_bytes(), MAX_PIXELS).pixels
    with progress_bars() as progress:
        result = run(folder, pixels, rounds, threads, progress)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result), indent=2))
    else:
        show_bench(result)
