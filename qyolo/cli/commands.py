"""The commands, in the order in which a user meets them.

Each imports what it needs when it runs: a server must not hold what only a build uses.
"""

import dataclasses
import json
import logging
import sys
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.errors import BadOption, QuantizerError
from qyolo.cli import options
from qyolo.cli.build_options import file_of, pictures, takes_config
from qyolo.cli.progress import progress_bars
from qyolo.cli.server_options import takes_cluster_settings, takes_settings
from service.errors import ServiceError
from service.settings import Settings
from service.vision.postprocess import Query
from zoo import bundle

USER_ERROR, INTERNAL_ERROR = 2, 1
DEMO = Path("qyolo-demo")  # where --demo puts its pictures

app = typer.Typer(
    name="qyolo",
    help="Turn a float YOLO detector into an int8 engine for this box, and serve it over REST.",
    epilog="Start with: qyolo up",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line: exit code 2 for what the user can mend, 1 for what only we can."""
    # Pillow advises on what it reads. Our limits refuse it with a clear error, and a server would
    # keep each text for good: they name numbers of the file, so that there is no end of them.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        app()
    except (QuantizerError, ServiceError, OSError) as exc:
        _fail(exc, options.message(exc), USER_ERROR)
    except Exception as exc:
        _fail(exc, f"internal error: {exc!r} (--debug shows where)", INTERNAL_ERROR)


def _fail(exc: Exception, message: str, code: int) -> None:
    if "--debug" in sys.argv:
        traceback.print_exception(exc)
    typer.echo(f"qyolo: {message}", err=True)
    raise SystemExit(code) from exc


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qyolo {version('qyolo')}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print and exit."),
    ] = False,
) -> None:
    if debug:
        logging.basicConfig(level="DEBUG", stream=sys.stderr)


@app.command()
@takes_config
def build(
    config: BuildConfig,
    out: Annotated[
        Path | None, typer.Option(help="Model folder to write; default: an entry of the cache.")
    ] = None,
    rebuild: options.Rebuild = False,
) -> None:
    """Quantize MODEL and compile it for this box; prints the model folder.

    Calibrates on images, chooses the range of every activation, finds the layers that int8 hurts
    most and leaves them float, writes the QDQ ONNX, compiles and times what this box can run, and
    compares the boxes on images held out from the calibration.
    """
    from quantizer.build import build as run
    from quantizer.cache import build_key
    from quantizer.report.data import Report
    from qyolo.building import WAITING, check_target
    from qyolo.cli.tables import summarise
    from service.folder_cache import obtain, publish

    reports: list[Report] = []
    with progress_bars() as progress:

        def fill(folder: Path) -> None:
            reports.append(run(config, folder, progress))

        if out is not None:
            check_target(out)
            publish(out.resolve(), fill)
        else:
            key = build_key(config)
            out = obtain(options.cache_root(), key, fill, rebuild, lambda: progress(WAITING))
    for report in reports:
        summarise(report)
    typer.echo(out)


@app.command()
@takes_settings
def serve(folder: options.Folder, settings: Settings) -> None:
    """Serve a model folder over REST."""
    from qyolo.serving import run_server
    from service.lifecycle import FolderSource
    from service.manifest import verify

    verify(folder)
    run_server(settings, FolderSource(folder))


@app.command()
@takes_config
@takes_settings
def up(config: BuildConfig, settings: Settings) -> None:
    """Build where the cache has no match, then serve: the whole job in one word.

    The server listens at once; /readyz tells how far the build is. The build runs in a process of
    its own.
    """
    from quantizer.cache import build_key
    from qyolo.building import BuildSource
    from qyolo.serving import run_server

    source = BuildSource(config, options.cache_root(), build_key(config))
    run_server(settings, source)


@app.command()
@takes_cluster_settings
def cluster(
    folder: options.Folder,
    settings: Settings,
    address: options.RayAddress = "auto",
    variant: options.Replicated = None,
    min_replicas: options.MinReplicas = 1,
    max_replicas: options.MaxReplicas = None,
    cpus: options.Cpus = 1,
    gpus: options.Gpus = 0,
    fronts: options.Fronts = 2,
    surge: options.Surge = 100,
) -> None:
    """Serve a model folder on a Ray cluster, or update what is served there.

    Needs the extra cluster. Each variant that is served has replicas of its own. Returns when all
    of them are ready; they go on without this process.
    """
    try:
        from qyolo.cluster.deploy import deploy
    except ModuleNotFoundError as exc:
        raise QuantizerError(
            "a cluster needs the extra cluster: pip install 'qyolo[cluster]'"
        ) from exc
    from qyolo.cluster.plan import Plan

    plan = Plan(
        folder=folder,
        variants=tuple(variant or ()),
        min_replicas=min_replicas,
        max_replicas=max_replicas or min_replicas,
        cpus=cpus,
        gpus=gpus,
        fronts=fronts,
        surge_percent=surge,
        settings=settings,
    )
    deploy(plan, address)


@app.command()
def models(as_json: options.AsJson = False) -> None:
    """List the official detectors that `qyolo build NAME` and `qyolo up NAME` fetch."""
    from rich.console import Console

    from qyolo.cli.models import as_table, state_of, user_store
    from zoo.catalogue import catalogue

    store = user_store()
    if as_json:
        listed = [m.model_dump(mode="json") | {"file": state_of(m, store)} for m in catalogue()]
        typer.echo(json.dumps(listed, indent=2))
    else:
        Console().print(as_table(store))


@app.command()
def doctor(
    device: options.OnDevice = "auto",
    runtime: options.WithRuntime = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what this box has, what a build would choose and why, and what is missing for better.

    Exit code 2 where --device and --runtime cannot work here.
    """
    from quantizer.compile.hardware import detect as look
    from qyolo.cli.doctor import as_json as to_json
    from qyolo.cli.doctor import diagnose, show

    diagnosis = diagnose(device, runtime, look())
    if as_json:
        typer.echo(json.dumps(to_json(diagnosis), indent=2))
    else:
        show(diagnosis)
    if isinstance(diagnosis.answer, BadOption):
        raise diagnosis.answer


@app.command()
def selftest(
    device: options.OnDevice = "auto",
    runtime: options.WithRuntime = None,
    out: Annotated[Path, typer.Option(help="Report to write, as JSON.")] = Path(
        "qyolo-selftest.json"
    ),
) -> None:
    """Build the detector that comes with qyolo on this box and check everything about it.

    Compares every variant with float32 on the CPU, loads each anew, asks which kernels run, and
    writes a report to send in. Exit code 1 where a check fails.
    """
    from qyolo.selftest import selftest as run
    from qyolo.selftest import show

    with progress_bars() as progress:
        config = BuildConfig(bundle.model(), bundle.CALIBRATION, device=device, runtime=runtime)
        result = run(config, progress)
    out.write_text(result.to_json())
    show(result)
    typer.echo(f"qyolo: wrote {out}", err=True)
    if not result.passed:
        raise typer.Exit(INTERNAL_ERROR)


@app.command()
def detect(
    folder: Annotated[
        Path | None, typer.Argument(help="Model folder that `qyolo build` wrote.")
    ] = None,
    images: Annotated[list[Path] | None, typer.Argument(help="Images to look at.")] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="The detector and the photos that come with qyolo."),
    ] = False,
    variant: options.OfVariant = None,
    conf: Annotated[float, typer.Option(min=0, max=1, help="Score threshold.")] = Query().conf,
    iou: Annotated[float, typer.Option(min=0, max=1, help="NMS threshold.")] = Query().iou,
    save: Annotated[
        Path | None,
        typer.Option(help="Folder for the pictures with their boxes drawn; --demo: qyolo-demo."),
    ] = None,
    threads: options.Threads = None,
) -> None:
    """Print the boxes of each image as a line of JSON, as the server would answer."""
    from qyolo.detect import ImageFailure, detect_images

    if demo:
        if folder is not None:
            raise QuantizerError("--demo brings its own model folder and images")
        folder, images, save = _demo_folder(), sorted(bundle.SAMPLES.glob("*.jpg")), save or DEMO
    if folder is None or not images:
        raise QuantizerError("name a model folder and images, or try --demo")
    query = Query(conf=conf, iou=iou)
    failures = 0
    for answer in detect_images(folder, images, variant, query, save, threads or 0):
        typer.echo(answer.model_dump_json())
        failures += isinstance(answer, ImageFailure)
    if demo:
        typer.echo(f"qyolo: pictures with boxes are in {save}", err=True)
    if failures:
        raise QuantizerError(f"{failures} of {len(images)} images gave no boxes")


def _demo_folder() -> Path:
    """The default detector as `qyolo up` would build it, from the cache or built now."""
    from quantizer.build import build as run
    from quantizer.cache import build_key
    from service.folder_cache import obtain

    config = BuildConfig(model=bundle.model(), calibration=bundle.CALIBRATION)
    with progress_bars() as progress:
        return obtain(
            options.cache_root(), build_key(config), lambda target: run(config, target, progress)
        )


@app.command("eval")
def evaluate(
    folder: options.Folder,
    images: Annotated[Path, typer.Option(help="Folder of the annotated images.")],
    annotations: Annotated[Path, typer.Option(help="Their annotations, as COCO JSON.")],
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Show each class as well; JSON always holds them.")
    ] = False,
    as_json: options.AsJson = False,
    threads: options.Threads = None,
) -> None:
    """Measure the COCO AP of every variant, and how far int8 agrees with fp32."""
    from quantizer.evaluation.accuracy import evaluate as run
    from qyolo.cli.tables import show_classes, show_evaluation

    with progress_bars() as progress:
        result = run(folder, images, annotations, threads or 0, progress)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result), indent=2))
        return
    show_evaluation(result)
    if per_class:
        show_classes(result)


@app.command()
def study(
    images: Annotated[Path, typer.Option(help="Folder of the annotated images.")],
    annotations: Annotated[Path, typer.Option(help="Their annotations, as COCO JSON.")],
    model: options.Model = bundle.NAME,
    calibration: options.Calibration = None,
    size: options.Size = 640,
    bits: Annotated[
        list[int] | None, typer.Option(min=2, max=8, help="Widths to study; default: 8, 6 and 4.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for study.md, study.json and study.svg.")
    ] = Path("qyolo-study"),
    trust_on_first_use: options.Trust = False,
    threads: options.Threads = None,
) -> None:
    """Repeat the tables of the Q-YOLO paper on MODEL, in simulation.

    Measures COCO AP with ranges by MinMax, percentile, MSE, entropy and UH, symmetric and
    asymmetric, of weights, activations and both, at 8, 6 and 4 bits.
    """
    from quantizer.study.study import ALL_BITS, settings
    from quantizer.study.study import study as run
    from qyolo.cli.study_report import as_markdown, write_study
    from service.engines.cpu import usable_threads

    with progress_bars() as progress:
        result = run(
            file_of(model, trust_on_first_use),
            pictures(calibration),
            AnnotatedDataset(images, annotations),
            size,
            threads or usable_threads(),
            list(settings(bits or ALL_BITS)),
            progress,
        )
    typer.echo(as_markdown(result))
    written = ", ".join(str(path) for path in write_study(result, out))
    typer.echo(f"qyolo: wrote {written}", err=True)


@app.command()
def bench(
    folder: options.Folder,
    image: Annotated[
        Path | None, typer.Option(help="Picture to time; default: noise of 640x480.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds over all variants.")] = 200,
    as_json: options.AsJson = False,
    threads: options.Threads = None,
) -> None:
    """Measure the latency of every variant, interleaved in one run."""
    from qyolo.bench import bench as run
    from qyolo.bench import noise
    from qyolo.cli.tables import show_bench
    from service.vision.image import MAX_PIXELS, decode_image

    pixels = noise() if image is None else decode_image(image.read_bytes(), MAX_PIXELS).pixels
    with progress_bars() as progress:
        result = run(folder, pixels, rounds, threads or 0, progress)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result), indent=2))
    else:
        show_bench(result)
