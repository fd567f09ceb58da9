"""An A/B experiment: the variant of each client, and the share of images that the shadow infers.

Each client keeps its variant, after a restart and on every replica, by weighted rendezvous hashing
(Schindelhauer and Schomaker, Weighted Distributed Hash Tables, 2005):

    n    = the first 8 bytes, big-endian, of SHA-256("<variant>\\n<client>")
    time = -ln((n + 1) / 2**64) / weight

and the client gets the variant with the least time. The times are exponentially distributed, so
each variant has the least one as often as its weight says. When one weight grows, clients move to
that variant and to no other.
"""

import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from service.errors import ServiceError

SPLIT_EXAMPLE: Final = "int8:0.9,fp32:0.1"
SHADOW_EXAMPLE: Final = "fp32:0.05"


class BadExperiment(ServiceError):
    """The configured split or shadow is malformed, or names an unknown variant."""


@dataclass(frozen=True, slots=True)
class Split:
    """The weight of each variant; they need not add up to 1."""

    weights: Mapping[str, float]

    def choose(self, client: str) -> str:
        """The variant that this client always gets."""
        return min(self.weights, key=lambda name: _exponential(name, client) / self.weights[name])

    def share(self, variant: str) -> float:
        """The fraction of all clients that gets this variant."""
        return self.weights.get(variant, 0.0) / sum(self.weights.values())


@dataclass(frozen=True, slots=True)
class Sample:
    """The shadow: a variant, and the fraction of the other variants' images that it infers."""

    variant: str
    share: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """Without a split, requests without `variant` use the default variant."""

    split: Split | None = None
    shadow: Sample | None = None

    def share(self, variant: str, default: str) -> float:
        """The fraction of the requests without `variant` that this variant answers."""
        return float(variant == default) if self.split is None else self.split.share(variant)

    def shadow_share(self, variant: str) -> float:
        """The fraction of the other variants' images that this variant infers as the shadow."""
        return 0.0 if self.shadow is None else self.shadow.share * (self.shadow.variant == variant)

    def check(self, variants: Collection[str]) -> None:
        """Raise BadExperiment when it names a variant that is not among these."""
        named = {name: "A/B split" for name in self.split.weights} if self.split else {}
        if self.shadow is not None:
            named.setdefault(self.shadow.variant, "shadow")
        for name, where in named.items():
            if name not in variants:
                raise BadExperiment(
                    f"the {where} names no variant of this model: {name!r}; "
                    f"there are: {', '.join(variants)}"
                )


def read_experiments(ab: str | None, shadow: str | None) -> Mapping[str, Experiment]:
    """The experiment of each model that the settings name, and of the first one, whose name is "".

    Semicolons separate models: "int8:0.9,fp32:0.1; boats=int8:0.5,fp32:0.5". Raises BadExperiment.
    """
    splits, shadows = _by_model(ab), _by_model(shadow)
    names = {"": None} | dict.fromkeys([*splits, *shadows])
    return {name: read_experiment(splits.get(name), shadows.get(name)) for name in names}


def read_experiment(ab: str | None, shadow: str | None) -> Experiment:
    """Parse the two settings, each of which may be blank; raises BadExperiment."""
    return Experiment(
        _split(ab) if ab and ab.strip() else None,
        Sample(*_pair(shadow, 1.0, "the shadow", SHADOW_EXAMPLE))
        if shadow and shadow.strip()
        else None,
    )


def _by_model(text: str | None) -> dict[str, str]:
    parts: dict[str, str] = {}
    for item in (text or "").split(";"):
        name, _, own = (part.strip() for part in item.rpartition("="))
        if name in parts:
            raise BadExperiment(f"{item.strip()!r} is the second one for the same model")
        if own:
            parts[name] = own
    return parts


def _split(text: str) -> Split:
    weights: dict[str, float] = {}
    for item in text.split(","):
        name, weight = _pair(item, sys.float_info.max, "the A/B split", SPLIT_EXAMPLE)
        if name in weights:
            raise BadExperiment(f"the A/B split names {name!r} twice")
        weights[name] = weight
    return Split(weights)


def _pair(item: str, most: float, where: str, example: str) -> tuple[str, float]:
    name, _, number = (part.strip() for part in item.partition(":"))
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not name or not 0 < value <= most:
        expected = "a share above 0 and up to 1" if most == 1 else "a weight above 0"
        raise BadExperiment(
            f"{where}: {item.strip()!r} is not a variant and {expected}, as in {example}"
        )
    return name, value


def _exponential(variant: str, client: str) -> float:
    """The client's time for a variant of weight 1."""
    digest = sha256(f"{variant}\n{client}".encode()).digest()
    return -math.log((int.from_bytes(digest[:8], "big") + 1) / 2**64)
