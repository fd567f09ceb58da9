"""APIs of other servers, so that their clients work unchanged.

Each protocol translates its requests to calls of the pipeline and declares its paths; limits,
metrics and request ids are the same for all. Frigate's has a socket of its own instead of paths.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from fastapi import FastAPI

from service.lifecycle import Lifecycle
from service.observability.metrics import Metrics
from service.protocols import deepstack, roboflow
from service.protocols.deepstack import DeepStack
from service.protocols.oip import routes as oip
from service.protocols.oip.routes import OpenInference
from service.protocols.roboflow import Roboflow
from service.settings import Settings
from service.transport.listener import CannotListen

PATHS: Final = (oip.PATHS, deepstack.PATHS, roboflow.PATHS)


def add_protocols(app: FastAPI, settings: Settings, lifecycle: Lifecycle) -> None:
    """Add their routes; the OpenAPI document omits them, since each protocol has its own."""
    OpenInference(settings, lifecycle, app.version).add_routes(app)
    DeepStack(settings, lifecycle).add_routes(app)
    Roboflow(settings, lifecycle, app.version).add_routes(app)


@asynccontextmanager
async def frigate_socket(
    settings: Settings,
    lifecycle: Lifecycle,
    metrics: Metrics,
    on_failure: Callable[[str], None],
) -> AsyncIterator[None]:
    """Answer Frigate inside the block, if the settings have an endpoint for it.

    `on_failure` is called with the reason if the socket cannot be opened.
    """
    async with AsyncExitStack() as stack:
        if settings.zmq is not None:
            try:
                # pyzmq is imported, and needs to be installed, only where there is an endpoint.
                from service.protocols.frigate import Frigate

                frigate = Frigate(settings.zmq, settings, lifecycle, metrics)
                await stack.enter_async_context(frigate.answering())
            except ModuleNotFoundError:
                on_failure("--zmq needs the extra frigate: pip install 'qyolo[frigate]'")
            except CannotListen as exc:
                on_failure(str(exc))
        yield
