"""The command line: all commands, in the order in which a user meets them.

A command imports its packages when it runs: a server must not load those that only a build uses.
"""

import logging
import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from quantizer.errors import QuantizerError
from qyolo.cli.build_commands import build, doctor, models, selftest
from qyolo.cli.change_commands import recalibrate, reload
from qyolo.cli.measure_commands import bench, detect, evaluate, study
from qyolo.cli.options import message
from qyolo.cli.serve_commands import cluster, serve, up, watch
from qyolo.errors import CommandError
from qyolo.process import set_up_process
from service.errors import ServiceError

USER_ERROR, INTERNAL_ERROR = 2, 1

app = typer.Typer(
    name="qyolo",
    help="Turn a float YOLO detector into an int8 engine for this machine; serve it over REST.",
    epilog="Start with: qyolo up",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line. Exit code 2: the user can fix it; 1: an internal error."""
    set_up_process()
    try:
        app()
    except (CommandError, QuantizerError, ServiceError, OSError) as exc:
        _fail(exc, message(exc), USER_ERROR)
    except Exception as exc:
        _fail(exc, f"internal error: {exc!r} (--debug shows where)", INTERNAL_ERROR)


def _fail(exc: Exception, message: str, code: int) -> None:
    if "--debug" in sys.argv:
        traceback.print_exception(exc)
    typer.echo(f"qyolo: {message}", err=True)
    raise SystemExit(code) from exc


def _print_version(requested: bool) -> None:
    if requested:
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


for _command in (
    *(build, serve, up, reload, recalibrate, cluster, watch),
    *(models, doctor, selftest, detect),
):
    app.command()(_command)
app.command("eval")(evaluate)
for _command in (study, bench):
    app.command()(_command)
