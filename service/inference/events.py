"""The events that a backend emits."""

from dataclasses import dataclass

from service.experiments.events import ExperimentEvent
from service.inference.results import Answer, RawAnswer


@dataclass(frozen=True, slots=True)
class Retried:
    """A replica of this variant was lost during a request, which is sent to another one."""

    variant: str


Event = Answer | RawAnswer | Retried | ExperimentEvent
