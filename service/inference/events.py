"""What the pipeline tells whoever watches it."""

from dataclasses import dataclass
from typing import Literal

from service.inference.results import Answer, RawAnswer
from service.vision.detections import Detections

Source = Literal["shadow", "compare"]
Outcome = Literal["done", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class Assigned:
    """A request that named no variant got this one by the split."""

    variant: str


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """The boxes of two variants on one image, at the same thresholds."""

    source: Source
    a: str
    b: str
    boxes_a: Detections
    boxes_b: Detections


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What became of an answer that was sampled for the shadow, which is this variant."""

    variant: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Retried:
    """A replica was lost under a request for this variant, and another one is asked."""

    variant: str


Event = Answer | RawAnswer | Assigned | Compared | Shadowed | Retried
