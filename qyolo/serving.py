"""Run the server until it is told to stop."""

import logging
import signal
import socket
import sys
from types import FrameType
from typing import Final

import typer
import uvicorn

from service.app import create_app
from service.errors import ServiceError
from service.settings import Settings
from service.sources import ModelSource

KEEP_ALIVE_S: Final = 5  # an idle connection is closed after this long
BACKLOG: Final = 2048  # connections that wait to be accepted


class CannotServe(ServiceError):
    """The address cannot be had, or the model cannot be served."""


def run_server(settings: Settings, source: ModelSource) -> None:
    """Serve until SIGTERM or SIGINT, then let accepted requests finish.

    Raises CannotServe.
    """
    logging.basicConfig(
        level=settings.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    failures: list[str] = []

    def fail(message: str) -> None:
        failures.append(message)
        server.should_exit = True

    config = uvicorn.Config(
        create_app(settings, source, on_failure=fail),
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_s,
        server_header=False,
    )
    server = uvicorn.Server(config)

    def stop(signum: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn has its own handlers while it runs, and raises the signal again for these when it has
    # drained: a clean stop must not end as a death by signal.
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, stop)
    with _listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        address = f"[{host}]" if ":" in host else host
        typer.echo(f"qyolo listens on http://{address}:{port}", err=True)
        server.run(sockets=[listener])
    if failures:
        raise CannotServe(failures[0])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on and each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)  # before the address is told, and before another can bind it too
        return listener
    except OSError as exc:
        listener.close()
        raise CannotServe(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
