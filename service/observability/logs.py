"""The log's two formats: lines for people, and one JSON object a line for collectors.

A record may carry `extra={"fields": {...}}`: they follow the message as `name=value`, or become
members of the JSON object.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

LogFormat = Literal["human", "json"]
Fields = Mapping[str, Any]

HUMAN: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
PLAIN: Final = re.compile(r"[!#-<>-~]+")  # printable ASCII but the space, the quote and =


def set_up_logs(level: str, log_format: LogFormat) -> None:
    """Log to stderr at `level`, or at a more detailed one that --debug has set before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else HumanFormatter(HUMAN))
    root = logging.getLogger()
    configured: int = logging.getLevelNamesMapping()[level.upper()]
    lowest = min(root.level, configured) if root.handlers else configured
    logging.basicConfig(level=lowest, handlers=[handler], force=True)


class HumanFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={_quoted(value)}" for name, value in _fields(record).items())
        line = super().formatMessage(record)
        return f"{line} {fields}" if fields else line


def _quoted(value: object) -> str:
    """A text as it is if nothing in it can be taken for another field, else as a JSON string."""
    text = str(value)
    return text if PLAIN.fullmatch(text) else json.dumps(text)


class JsonFormatter(logging.Formatter):
    """A message of several lines is still one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> Fields:
    fields: Fields = getattr(record, "fields", {})
    return fields
