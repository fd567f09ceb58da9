"""What each HTTP API declares about its paths: error format, API keys, logging.

A path that ends in `*` stands for every path with the prefix before it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorFormat:
    """The body of an error response; `statuses` maps each status that the protocol lacks."""

    body: Callable[[int, str], dict[str, object]]  # of the status and the message
    statuses: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ApiPaths:
    """The paths of one API, and those of them that are special."""

    paths: tuple[str, ...]
    error_format: ErrorFormat | None = None  # None: problem documents
    key_in_request: tuple[str, ...] = ()  # the API key may be in the query or in the body
    public: tuple[str, ...] = ()  # no API key is needed
    routine: tuple[str, ...] = ()  # machines poll them: logged at debug level, not traced


class PathSet:
    """A set of paths, for `in`."""

    def __init__(self, paths: Iterable[str]) -> None:
        listed = tuple(paths)
        self._exact = frozenset(path for path in listed if not path.endswith("*"))
        self._prefixes = tuple(path[:-1] for path in listed if path.endswith("*"))

    def __contains__(self, path: object) -> bool:
        return path in self._exact or (isinstance(path, str) and path.startswith(self._prefixes))
