"""Which of the offered media types a client's Accept header prefers (RFC 9110, 12.5.1)."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Offer = TypeVar("Offer", bound=str)


def choose(accept: str, offers: Sequence[Offer]) -> Offer | None:
    """The offer with the highest quality, the earlier one on a tie; None when none is accepted.

    An empty header accepts everything.
    """
    if not accept.strip():
        return offers[0]
    ranges = dict(_ranges(accept))
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    return best if _quality(best, ranges) > 0 else None


def _quality(offer: str, ranges: dict[str, float]) -> float:
    """That of the most specific range that covers the offer."""
    for pattern in (offer, f"{offer.partition('/')[0]}/*", "*/*"):
        if pattern in ranges:
            return ranges[pattern]
    return 0.0


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        weight = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        try:
            quality = float(weight)
        except ValueError:
            continue
        if 0 <= quality <= 1:  # what cannot be read accepts nothing
            yield media_range, quality
