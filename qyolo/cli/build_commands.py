"""build, and the commands about what a build depends on: models, doctor, selftest."""

import json
from pathlib import Path
from typing import Annotated

import typer

from quantizer.config import BuildConfig, Device
from quantizer.errors import BadOption
from qyolo.cli.fields import takes_fields
from qyolo.cli.options import BUILD, AsJson, takes_config, validated
from qyolo.user_cache import cache_root
from service.manifest import Runtime
from zoo import bundle

CHECK_FAILED = 1


@takes_config
def build(
    config: BuildConfig,
    out: Annotated[
        Path | None, typer.Option(help="Model folder to write; default: an entry of the cache.")
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Build even if the cache has it.", rich_help_panel="Build"),
    ] = False,
) -> None:
    """Quantize MODEL and compile it for this machine; prints the model folder.

    Calibrates on images, chooses the range of every activation, keeps the most sensitive layers
    float, writes the QDQ ONNX, compiles and times every variant that this machine can run, and
    compares their boxes on images held out from the calibration.
    """
    from quantizer.build import build as run
    from quantizer.cache import build_key
    from quantizer.report.data import Report
    from qyolo.building import WAITING, check_target
    from qyolo.cli.progress import progress_bars
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
            out = obtain(cache_root(), key, fill, rebuild, lambda: progress(WAITING))
    for report in reports:
        summarise(report)
    typer.echo(out)


def models(as_json: AsJson = False) -> None:
    """List the official detectors that `qyolo build NAME` and `qyolo up NAME` download."""
    from rich.console import Console

    from qyolo.cli.models import as_table, model_store, state_of
    from zoo.catalogue import catalogue

    store = model_store()
    if as_json:
        listed = [m.model_dump(mode="json") | {"file": state_of(m, store)} for m in catalogue()]
        typer.echo(json.dumps(listed, indent=2))
    else:
        Console().print(as_table(store))


@takes_fields(BUILD, "Build")
def doctor(device: Device, runtime: Runtime | None, as_json: AsJson = False) -> None:
    """Show the hardware and the runtimes here, which one a build would choose, and why.

    Exit code 2 where --device and --runtime cannot work here.
    """
    from quantizer.compile.hardware import detect as look
    from quantizer.compile.hardware import openvino_devices
    from qyolo.cli.doctor import as_json as to_json
    from qyolo.cli.doctor import choose, show

    hardware, devices = look(), openvino_devices()
    answer = choose(device, runtime, hardware)
    if as_json:
        typer.echo(json.dumps(to_json(hardware, devices, answer), indent=2))
    else:
        show(hardware, devices, answer)
    if isinstance(answer, BadOption):
        raise answer


@takes_fields(BUILD, "Build")
def selftest(
    device: Device,
    openvino_device: str | None,
    runtime: Runtime | None,
    out: Annotated[Path, typer.Option(help="Report to write, as JSON.")] = Path(
        "qyolo-selftest.json"
    ),
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Also time the models of the Q-YOLO paper's speed table, with random weights.",
        ),
    ] = False,
) -> None:
    """Build the bundled detector on this machine and check its engines.

    Compares every variant with float32 on the CPU, loads each one again, checks which kernels run,
    and writes a report to send in. Exit code 1 if a check fails.
    """
    from qyolo.cli.progress import progress_bars
    from qyolo.cli.tables import show_selftest
    from qyolo.selftest import selftest as run

    with progress_bars() as progress:
        config = validated(
            BuildConfig,
            model=bundle.model(),
            calibration=bundle.CALIBRATION,
            device=device,
            openvino_device=openvino_device,
            runtime=runtime,
        )
        result = run(config, progress, paper)
    out.write_text(result.to_json())
    show_selftest(result)
    typer.echo(f"qyolo: wrote {out}", err=True)
    if not result.passed:
        raise typer.Exit(CHECK_FAILED)
