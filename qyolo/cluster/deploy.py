"""Deploy on a running Ray cluster, or update what is deployed there."""

import logging
import os
import socket
from typing import Final

import ray
import typer
from ray import serve

from quantizer.errors import BadOption
from qyolo.cluster.application import build
from qyolo.cluster.plan import Plan
from qyolo.errors import CommandError
from service.transport.listener import require_keys

NAME: Final = "qyolo"
CONNECT_TIMEOUT_S: Final = 5.0


def deploy(plan: Plan, address: str) -> None:
    """Return when every replica is ready; the replicas of the last deployment serve until then.

    Raises CannotListen, CommandError, and what `build` raises.
    """
    settings = plan.settings
    if settings.port == 0:
        raise BadOption("port", "0: every node listens on the same port: name one")
    require_keys(settings, socket.gethostbyname(settings.host))
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _connect(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except OSError as exc:
        raise CommandError(
            f"no Ray cluster at {address!r}: start one with ray start --head --disable-usage-stats"
        ) from exc
    try:
        serve.start("EveryNode", {"host": settings.host, "port": settings.port})
        serve.run(build(plan), name=NAME)
    except RuntimeError as exc:
        raise CommandError("the cluster cannot serve the model: `serve status` says why") from exc
    finally:
        ray.shutdown()
    typer.echo(f"qyolo listens on port {settings.port} of each node that has a replica", err=True)


def _connect(address: str) -> None:
    """Raise OSError if nothing listens there; Ray itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
