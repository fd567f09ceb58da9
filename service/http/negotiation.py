"""The offered media type that an Accept header prefers (RFC 9110, 12.5.1).

Neither Starlette nor FastAPI has this; prometheus_client's is for its own formats.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Offer = TypeVar("Offer", bound=str)


def choose(accept: str, offers: Sequence[Offer]) -> Offer | None:
    """The offer of the highest quality, the first one on a tie; None if none is accepted.

    An empty header accepts everything.
    """
    if not accept.strip():
        return offers[0]
    ranges = dict(_ranges(accept))
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    return best if _quality(best, ranges) > 0 else None


def _quality(offer: str, ranges: dict[str, float]) -> float:
    """The quality of the most specific media range that matches."""
    matching = (offer, f"{offer.partition('/')[0]}/*", "*/*")
    return next((ranges[pattern] for pattern in matching if pattern in ranges), 0.0)


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """Each valid media range and its quality."""
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        weight = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        try:
            quality = float(weight)
        except ValueError:
            continue
        if 0 <= quality <= 1:
            yield media_range, quality
