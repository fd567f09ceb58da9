"""The results of a backend, and the events that it emits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from service.experiments.events import ExperimentEvent
from service.inference.timings import Timings
from service.vision.detections import Detections, Floats


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The boxes of one variant, in pixels of a source image of width x height."""

    variant: str
    width: int
    height: int
    detections: Detections
    timings: Timings
    picture: bytes | None = None  # the image file that the request's `render` returned
    after_response: Callable[[], None] | None = None  # to be called once the response is sent


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The answers of two variants to one image."""

    a: Answer
    b: Answer
    picture: bytes | None = None  # the image file that the request's `render` returned


@dataclass(frozen=True, slots=True, eq=False)
class RawAnswer:
    """The raw output of one variant for a tensor."""

    variant: str
    output: Floats
    timings: Timings


@dataclass(frozen=True, slots=True)
class Retried:
    """A replica of this variant was lost during a request, which is sent to another one."""

    variant: str


FailureReason = Literal["error", "not_finite", "hang", "load"]


@dataclass(frozen=True, slots=True)
class EngineFailure:
    """An engine raised an error, returned NaN, does not return, or cannot be loaded again."""

    reason: FailureReason


Event = Answer | RawAnswer | Retried | EngineFailure | ExperimentEvent
