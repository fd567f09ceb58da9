"""The events of experiments."""

from dataclasses import dataclass
from typing import Literal

from service.vision.detections import Detections

Source = Literal["shadow", "compare"]
Outcome = Literal["done", "dropped", "failed"]


@dataclass(frozen=True, slots=True)
class Assigned:
    """The A/B split gave this variant to a request that named none."""

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
    """The outcome of an image that was sampled for the shadow, which is this variant."""

    variant: str
    outcome: Outcome


ExperimentEvent = Assigned | Compared | Shadowed
