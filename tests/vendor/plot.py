"""What a test wants to go wrong in a scripted TensorRT, and what it can look at afterwards."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Literal

import onnx

from tests.vendor.fake_tensorrt import FakeTensorRt

Failure = Literal["parse", "build", "deserialize", "context", "execute"]


@dataclass(frozen=True, slots=True)
class Complaint:
    """An error of the ONNX parser."""

    desc: str
    node_name: str = ""
    node_operator: str = ""
    node: int = -1


@dataclass(frozen=True, slots=True)
class Build:
    """What a call of build_serialized_network was asked for, by TensorRT's names."""

    model: onnx.ModelProto
    network_flags: frozenset[str]
    flags: frozenset[str]
    verbosity: str
    pools: Mapping[str, int]
    known: tuple[str, ...]  # layers that the timing cache held before


class Plot:
    """Tests change it at any time."""

    def __init__(self) -> None:
        self.complaint = Complaint("unsupported", "/0/Conv", "Conv", 0)  # of a parser that fails
        self.builds: list[Build] = []
        self.logged: list[str] = []  # by loggers that do not override log
        self._failures: dict[Failure, Iterator[bool]] = {}

    def fail(self, what: Failure, calls: int | None = None, after: int = 0) -> None:
        """Let calls fail from now on, or so many of them; first some more succeed."""
        failing = repeat(True) if calls is None else repeat(True, calls)
        self._failures[what] = chain(repeat(False, after), failing)

    def fails(self, what: Failure) -> bool:
        """Whether this call does."""
        return next(self._failures.get(what, repeat(False, 0)), False)


def report(fake: FakeTensorRt, logger: Any, severity: str, text: str) -> None:
    """A message, as TensorRT hands one to a logger."""
    logger.log(fake.classes["ILogger.Severity"].__members__[severity], text)


def members(fake: FakeTensorRt, name: str, flags: int) -> frozenset[str]:
    """The names of an enum's members whose bits are set."""
    every = fake.classes[name].__members__.values()
    return frozenset(each.name for each in every if flags >> int(each) & 1)
