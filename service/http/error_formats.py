"""How the protocols of others word an error, by the path of the request.

A client of such a protocol reads its own form only; everything else gets a problem document.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ErrorFormat:
    """The body of an error, and the statuses that the protocol has instead of ours."""

    body: Callable[[int, str], dict[str, object]]
    statuses: Mapping[int, int]


# Triton knows neither what is too large nor of another type; a full queue is "unavailable".
OPEN_INFERENCE: Final = ErrorFormat(
    lambda status, text: {"error": text}, {406: 400, 413: 400, 415: 400, 422: 400, 429: 503}
)
DEEPSTACK: Final = ErrorFormat(
    lambda status, text: {"success": False, "error": text, "code": status, "duration": 0},
    {413: 400, 415: 400, 422: 400},
)
ROBOFLOW: Final = ErrorFormat(lambda status, text: {"message": text}, {415: 400, 422: 400})

_ROOTS: Final[Mapping[str, ErrorFormat]] = {
    "/v2": OPEN_INFERENCE,
    "/v1/vision": DEEPSTACK,
    "/info": ROBOFLOW,
    "/model": ROBOFLOW,
    "/infer": ROBOFLOW,
}


def error_format_of(path: str) -> ErrorFormat | None:
    """The dialect of a request's path, whether there is a route or not; None for our own."""
    for root, dialect in _ROOTS.items():
        if path == root or path.startswith(f"{root}/"):
            return dialect
    return None
