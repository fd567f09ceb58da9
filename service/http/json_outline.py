"""JSON without its long values, so that parsing it takes no time to speak of.

A parser of JSON holds the GIL until it is done: for seconds, if 20 MiB are small values. What a
request needs so much of is a text or a list of numbers. These are found by their ends and left out,
and what remains must be small.
"""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic_core import from_json

from service.errors import BadRequest

LONG: Final = 4096  # bytes of a value that is left out
MAX_OUTLINE: Final = 64 * 2**10  # bytes
MAX_TOKENS: Final = 10_000
TOKENS: Final = (b",", b"[", b"{")  # nearly one for each value
BLOCK: Final = 2**20  # bytes that are searched at a time
PIECE: Final = 2**15  # bytes that are parsed at a time
LONGEST_ESCAPE: Final = len(r"\u0041")
QUOTE: Final = ord('"')


@dataclass(frozen=True, slots=True)
class LongValue:
    """A value in `body`: a text without its quotes, or a list with its brackets."""

    body: bytes
    start: int
    end: int

    def text(self) -> bytes:
        """The text without escapes; raises BadRequest if it is not ASCII."""
        if self.body.find(b"\\", self.start, self.end) < 0:
            return self.body[self.start : self.end]
        try:
            return b"".join(self._unescaped())
        except ValueError as exc:
            raise BadRequest("a long text of the JSON has an invalid escape") from exc

    def _unescaped(self) -> Iterator[bytes]:
        at = self.start
        while at < self.end:
            stop = min(at + PIECE, self.end)
            if stop < self.end:  # an escape must not be cut
                escape = self.body.rfind(b"\\", stop - LONGEST_ESCAPE, stop)
                stop = stop if escape < 0 else escape
            yield from_json(b'"%b"' % self.body[at:stop]).encode("ascii")
            at = stop


@dataclass(frozen=True, slots=True)
class Outline:
    """JSON with a name in the place of each long value."""

    json: bytes
    long: Mapping[str, LongValue]

    def text(self, found: str) -> str | bytes:
        """The text for one that was found in the JSON: itself, or the long one that it names."""
        return self.long[found].text() if found in self.long else found


def outline_of(body: bytes) -> Outline:
    """Raises BadRequest if there is too much besides the long values."""
    long, pieces, size, copied = {}, [], len(body), 0
    token = secrets.token_hex(8)  # no client can name a value itself
    for number, value in enumerate(_long_values(body)):
        name = f"{token}-{number}"
        long[name] = value
        is_text = body[value.start - 1] == QUOTE
        pieces += [body[copied : value.start], (name if is_text else f'"{name}"').encode()]
        size -= value.end - value.start
        copied = value.end
    if size > MAX_OUTLINE:
        raise BadRequest(f"body: {size} bytes besides the long values, more than {MAX_OUTLINE}")
    outline = b"".join([*pieces, body[copied:]])
    if sum(map(outline.count, TOKENS)) > MAX_TOKENS:
        raise _too_many()
    return Outline(outline, long)


def count_of(body: bytes, byte: int, start: int, end: int) -> int:
    """How often the byte occurs, counted without the GIL."""
    return sum(int(np.count_nonzero(block == byte)) for _, block in _blocks(body, start, end))


def _long_values(body: bytes) -> Iterator[LongValue]:
    """Long texts, and long lists that are values of fields and contain no text."""
    begin = after_quote = 0
    is_text = False
    for at in _quotes(body):
        if is_text and _is_escaped(body, after_quote, at):
            after_quote = at + 1
            continue
        if at - begin > LONG:
            yield from [LongValue(body, begin, at)] if is_text else _long_list(body, begin, at)
        begin = after_quote = at + 1
        is_text = not is_text
    if not is_text:
        yield from _long_list(body, begin, len(body))


def _quotes(body: bytes) -> list[int]:
    found: list[int] = []
    for start, block in _blocks(body, 0, len(body)):
        positions = np.flatnonzero(block == QUOTE)
        if len(found) + len(positions) > MAX_TOKENS:
            raise _too_many()
        found += (positions + start).tolist()
    return found


def _is_escaped(body: bytes, start: int, at: int) -> bool:
    """Whether an odd number of backslashes is between `start` and `at`, just before `at`."""
    if body[at - 1 : at] != b"\\":
        return False
    text = body[start:at]
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


def _long_list(body: bytes, start: int, end: int) -> Iterator[LongValue]:
    """The list that is the value of a field whose name ends at `start`, if it ends before `end`."""
    first = body.find(b"[", start, start + LONG)
    if first < 0 or body[start:first].strip() != b":":
        return
    closing = body.find(b"}", first, end)
    last = body.rfind(b"]", first, end if closing < 0 else closing)
    if last - first > LONG:
        yield LongValue(body, first, last + 1)


def _blocks(body: bytes, start: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
    for at in range(start, end, BLOCK):
        yield at, np.frombuffer(body, np.uint8, min(BLOCK, end - at), at)


def _too_many() -> BadRequest:
    return BadRequest(f"body: there are more than {MAX_TOKENS} values or texts")
