"""uvicorn's configuration for this application."""

from collections.abc import Container
from functools import partial
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from service.settings import Settings
from service.transport.forwarded import ForwardedClient
from service.transport.protocol import LimitedProtocol

KEEP_ALIVE_S: Final = 5  # an idle connection is closed after this time


def server_config(app: ASGIApp, settings: Settings, routine: Container[str]) -> uvicorn.Config:
    """`routine`: the paths that machines poll, which have connections of their own."""
    if settings.trusted_proxies is not None:
        app = ForwardedClient(app, settings.trusted_proxies)
    return uvicorn.Config(
        app,
        http=partial(LimitedProtocol, settings=settings, routine=routine),  # type: ignore[arg-type]  # only called
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_s,
    )
