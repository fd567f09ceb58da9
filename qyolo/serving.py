"""Run the server until a signal stops it."""

import logging
import os
import signal
import socket
from collections.abc import Mapping
from types import FrameType
from typing import Final

import typer

from qyolo.errors import CommandError
from qyolo.process import set_up_process
from service.app import ROUTINE, Changes, OpenBackend, create_app
from service.inference.models import ModelFolder
from service.lifecycle import ModelSource
from service.observability.logs import set_up_logs
from service.observability.tracing import tracing
from service.recalibration import Rebuild
from service.settings import Settings
from service.transport.config import server_config
from service.transport.listener import open_listener
from service.transport.server import Server
from zoo import bundle

STUCK: Final = 3  # the exit code where an engine hangs

log = logging.getLogger(__name__)


def run_server(
    settings: Settings,
    source: ModelSource,
    open_backend: OpenBackend | None = None,
    name: str | None = None,
    rebuilds: Mapping[str, Rebuild] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in flight finish.

    The model of `source`, under `name` if it is given, is the first; `settings.models` are beside
    it. `rebuilds`: by name, of those that can be built again. Where an engine still runs after
    that, the process exits at once, with the code STUCK. Raises CannotListen, BadKeys,
    TelemetryMissing, or CommandError if there is no model to serve, or none any more.
    """
    set_up_process(serves=True)
    set_up_logs(settings.log_level, settings.log_format)
    with open_listener(settings) as listener, tracing(settings.otel) as traces:
        failures: list[str] = []

        def fail(message: str) -> None:
            failures.append(message)
            server.should_exit = True

        app = create_app(
            settings,
            source,
            fail,
            open_backend,
            traces,
            name,
            [ModelFolder.parse(text) for text in settings.models],
            Changes(bundle.SAMPLES, rebuilds or {}),
        )
        lifecycle = app.state.lifecycle
        server = Server(server_config(app, settings, ROUTINE), lifecycle.begin_drain)
        _run(server, settings, listener)
    if not lifecycle.has_ended:
        log.error("the process ends although an engine still runs")
        for failure in failures:
            typer.echo(f"qyolo: {failure}", err=True)
        # A regular exit would wait for the engine, or free what it uses.
        os._exit(STUCK)
    if failures:
        raise CommandError(failures[0])


def _run(server: Server, settings: Settings, listener: socket.socket) -> None:
    def stop(signum: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn installs its own handlers while it runs and raises the signal again when it has
    # drained; with these handlers a clean stop exits with code 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    _announce(settings, listener)
    server.run(sockets=[listener])


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    text = f"qyolo listens on http://{address}:{port}"
    if settings.log_format == "json":
        log.info(text)
    else:
        typer.echo(text, err=True)
