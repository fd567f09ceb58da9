"""Notice that a client has gone, so that nobody works for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; if the client hangs up first, the work is cancelled.

    The body must have been read: what the client sends next is then its farewell. Raises
    ClientDisconnect.
    """
    task, is_gone = asyncio.current_task(), False
    assert task is not None

    def stop(watched: asyncio.Task[None]) -> None:
        nonlocal is_gone
        is_gone = True
        task.cancel()

    watching = asyncio.ensure_future(_gone(request))
    watching.add_done_callback(stop)
    try:
        return await work
    except asyncio.CancelledError:
        # Unless somebody else has cancelled it too: the deadline, or the server that stops.
        if is_gone and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        watching.remove_done_callback(stop)
        watching.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
