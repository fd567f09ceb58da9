"""Run the server until a signal stops it."""

import logging
import signal
import socket
from types import FrameType

import typer
import uvicorn

from qyolo.errors import CommandError
from qyolo.process import set_up_process
from service.app import ROUTINE, create_app
from service.lifecycle import ModelSource
from service.observability.logs import set_up_logs
from service.observability.tracing import Tracing, tracing
from service.settings import Settings
from service.transport.config import server_config
from service.transport.listener import open_listener

log = logging.getLogger(__name__)


def run_server(settings: Settings, source: ModelSource) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in flight finish.

    Raises CannotListen, BadKeys, TelemetryMissing, or CommandError if there is no model to serve.
    """
    set_up_process(serves=True)
    set_up_logs(settings.log_level, settings.log_format)
    with open_listener(settings) as listener, tracing(settings.otel) as traces:
        _serve(settings, source, listener, traces)


def _serve(
    settings: Settings, source: ModelSource, listener: socket.socket, traces: Tracing | None
) -> None:
    failures: list[str] = []

    def fail(message: str) -> None:
        failures.append(message)
        server.should_exit = True

    app = create_app(settings, source, on_failure=fail, traces=traces)
    server = uvicorn.Server(server_config(app, settings, ROUTINE))

    def stop(signum: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn installs its own handlers while it runs and raises the signal again when it has
    # drained; with these handlers a clean stop exits with code 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    _announce(settings, listener)
    server.run(sockets=[listener])
    if failures:
        raise CommandError(failures[0])


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    text = f"qyolo listens on http://{address}:{port}"
    if settings.log_format == "json":
        log.info(text)
    else:
        typer.echo(text, err=True)
