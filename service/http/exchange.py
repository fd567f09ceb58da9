"""The steps of a request for inference: admit, read the body, choose a variant, infer, respond."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.errors import InvalidRequest
from service.http.client_identity import account_of, client_of
from service.inference.admission import Admission, Body
from service.inference.backend import InferenceBackend
from service.inference.results import Answer, RawAnswer

VARIANT_HEADER: Final = "X-Qyolo-Variant"
INSTEAD_OF: Final = "X-Qyolo-Instead-Of"  # the variant whose engine has failed
DEADLINE_HEADER: Final = "X-Qyolo-Deadline-Ms"  # milliseconds
MILLISECONDS: Final = re.compile(r"0*[1-9]\d{0,8}", re.ASCII)
JSON_HEADERS: Final = {"Content-Type": "application/json"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """A parsed request: who answers, the variant that it names, if any, and its work with one."""

    backend: InferenceBackend
    variant: str | None
    work: Callable[[str], Coroutine[Any, Any, T]]


async def exchange(
    request: Request, admission: Admission, read: Callable[[Body], Awaitable[Job[T]]]
) -> T:
    """Read the body as a job, choose its variant, and return the result of its work.

    Raises InvalidRequest or Overloaded before the body is read, ClientDisconnect, and what `read`
    and the job raise.
    """
    with admission.request(account_of(request), _deadline_of(request)) as body:
        job = await read(body)
        chosen = job.backend.choice.choose(job.variant, client_of(request))
        if chosen.instead_of is not None:
            request.state.instead_of = chosen.instead_of
        return await _cancelled_on_disconnect(request, job.work(chosen.variant))


def respond(
    content: str | bytes,
    answers: Sequence[Answer | RawAnswer],
    headers: Mapping[str, str] = JSON_HEADERS,
) -> Response:
    """A response that names the answers' variant; their `after_response` is its background task."""
    tasks = [a.after_response for a in answers if isinstance(a, Answer) and a.after_response]
    background = BackgroundTask(_run, tasks) if tasks else None
    headers = {VARIANT_HEADER: answers[0].variant, **headers}
    return Response(content, headers=headers, background=background)


def _deadline_of(request: Request) -> float | None:
    """The time of the loop's clock until which the request wants its answer; None: any time."""
    text = request.headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    if not MILLISECONDS.fullmatch(text):
        raise InvalidRequest(f"{DEADLINE_HEADER}: send milliseconds, a whole number above 0")
    return asyncio.get_running_loop().time() + int(text) / 1000


async def _run(tasks: Sequence[Callable[[], None]]) -> None:
    """A coroutine, because Starlette would call a plain function in a thread."""
    for task in tasks:
        task()


async def _cancelled_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled when the client disconnects.

    The body must have been read. Raises ClientDisconnect.
    """
    task, is_gone = asyncio.current_task(), False
    assert task is not None

    def cancel(_: asyncio.Task[None]) -> None:
        nonlocal is_gone
        is_gone = True
        task.cancel()

    disconnected = asyncio.ensure_future(_disconnected(request))
    disconnected.add_done_callback(cancel)
    try:
        return await work
    except asyncio.CancelledError:
        # The deadline, or a server that stops, may have cancelled it too.
        if is_gone and task.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        disconnected.remove_done_callback(cancel)
        disconnected.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
