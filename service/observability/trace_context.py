"""The trace that a request belongs to, as W3C Trace Context writes it in headers."""

import re
import secrets
from dataclasses import dataclass
from typing import Final

REQUEST_HEADER: Final = "traceparent"
ANSWER_HEADER: Final = "traceresponse"  # of Trace Context's second level: our own span of the trace

# A later version may have more behind its flags; ids of zeros alone stand for none.
PATTERN: Final = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace, and the span in it that stands for this server's part."""

    trace_id: str
    span_id: str
    flags: str

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def read_trace(traceparent: str) -> Trace | None:
    """The caller's trace with a span of our own in it; None where the header cannot be read."""
    match = PATTERN.fullmatch(traceparent)
    return Trace(match[1], secrets.token_hex(8), match[2]) if match else None
