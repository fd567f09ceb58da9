"""Open the listening socket; refuse an address that others can reach while no API keys are set."""

import ipaddress
import logging
import socket
from typing import Final

from service.errors import ServiceError
from service.settings import Settings

BACKLOG: Final = 2048  # connections that the kernel queues until the server accepts them

log = logging.getLogger(__name__)


class CannotListen(ServiceError):
    """The address cannot be bound, or others could use the server without an API key."""


def open_listener(settings: Settings) -> socket.socket:
    """A bound and listening TCP socket; raises CannotListen."""
    listener = listen(settings.host, settings.port)
    try:
        require_keys(settings, listener.getsockname()[0])
    except CannotListen:
        listener.close()
        raise
    return listener


def listen(host: str, port: int) -> socket.socket:
    """The same on any address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is IPPROTO_TCP: with Nagle each
    # response waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)  # at once, so that no other process can bind the address too
    except OSError as exc:
        listener.close()
        raise CannotListen(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    return listener


def require_keys(settings: Settings, address: str) -> None:
    """Raise CannotListen if others can reach `address` and the server has no API keys.

    `address` is the numeric one of the socket, since a host name may resolve to any. In a container
    it says nothing about who can connect; there `published` does.
    """
    has_keys = settings.api_keys is not None or settings.api_keys_file is not None
    reached = settings.published or ipaddress.ip_address(address)
    if has_keys or reached.is_loopback:
        return
    if not settings.insecure:
        raise CannotListen(
            f"others can reach {reached}: set QYOLO_API_KEYS or QYOLO_API_KEYS_FILE, "
            "or serve everyone with --insecure"
        )
    log.warning("everyone who can reach %s can use this server: it has no API keys", reached)
