"""uvicorn's server, which tells when it begins to stop."""

import socket
from collections.abc import Callable

import uvicorn


class Server(uvicorn.Server):
    """`on_stop` is called before the connections are drained."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stop()
        await super().shutdown(sockets)
