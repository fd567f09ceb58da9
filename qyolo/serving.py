"""Run the server until it is told to stop."""

import ipaddress
import logging
import signal
import socket
from types import FrameType
from typing import Final

import typer
import uvicorn

from qyolo.process import limit_malloc_arenas
from service.app import create_app
from service.errors import ServiceError
from service.lifecycle import ModelSource
from service.observability.logs import set_up_logs
from service.observability.tracing import Tracing, tracing
from service.settings import Settings
from service.transport.protocol import ServerConfig

BACKLOG: Final = 2048  # connections that wait to be accepted

log = logging.getLogger(__name__)


class CannotServe(ServiceError):
    """The address cannot be had, or the model cannot be served."""


def run_server(settings: Settings, source: ModelSource) -> None:
    """Serve until SIGTERM or SIGINT, then let accepted requests finish.

    Raises CannotServe, BadKeys or TelemetryMissing.
    """
    limit_malloc_arenas()
    set_up_logs(settings.log_level, settings.log_format)
    with _listen(settings) as listener, tracing(settings.otel) as traces:
        _serve(settings, source, listener, traces)


def _serve(
    settings: Settings, source: ModelSource, listener: socket.socket, traces: Tracing | None
) -> None:
    failures: list[str] = []

    def fail(message: str) -> None:
        failures.append(message)
        server.should_exit = True

    app = create_app(settings, source, on_failure=fail, traces=traces)
    server = uvicorn.Server(ServerConfig(app, settings))

    def stop(signum: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn has its own handlers while it runs, and raises the signal again for these when it has
    # drained: a clean stop must not end as a death by signal.
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, stop)
    _tell(settings, listener)
    server.run(sockets=[listener])
    if failures:
        raise CannotServe(failures[0])


def _tell(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    told = f"qyolo listens on http://{address}:{port}"
    if settings.log_format == "json":
        log.info(told)
    else:
        typer.echo(told, err=True)


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on and each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        ensure_guarded(settings, listener.getsockname()[0])
        listener.listen(BACKLOG)  # before the address is told, and before another can bind it too
        return listener
    except OSError as exc:
        listener.close()
        raise CannotServe(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    except CannotServe:
        listener.close()
        raise


def ensure_guarded(settings: Settings, address: str) -> None:
    """Raise CannotServe for an address that others reach without keys.

    `address` is the one that the socket has: a name may have stood for any.
    In a container it tells nothing; there `published` does.
    """
    has_keys = settings.api_keys is not None or settings.api_keys_file is not None
    reached = settings.published or ipaddress.ip_address(address)
    if has_keys or reached.is_loopback:
        return
    if not settings.insecure:
        raise CannotServe(
            f"others can reach {reached}: set QYOLO_API_KEYS or QYOLO_API_KEYS_FILE, "
            "or serve everyone with --insecure"
        )
    log.warning("whoever reaches %s may use this server: it has no API keys", reached)
