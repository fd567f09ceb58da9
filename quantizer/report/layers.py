"""Where each convolution was planned to run, and what the runtime executes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from quantizer.compile.builder import INT8_NAMES, Built
from quantizer.qdq.placement import Placement
from service.manifest import Precision


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One convolution: the plan, and what the runtime executes in each variant."""

    layer: str
    planned: str  # int8 or float
    reason: str  # why it stays float
    reads: tuple[str, ...]  # quantized activations
    executed: Mapping[Precision, str]

    @classmethod
    def of_all(cls, placement: Placement, built: Mapping[Precision, Built]) -> tuple[Self, ...]:
        """Every convolution, quantized ones first, each in the graph's order."""
        plan = [(site.layer, "int8", "", site.reads) for site in placement.weights]
        plan += [(kept.layer, "float", kept.reason, ()) for kept in placement.kept_float]
        return tuple(
            cls(
                *each, {name: part.executed.get(each[0], "unknown") for name, part in built.items()}
            )
            for each in plan
        )


@dataclass(frozen=True, slots=True)
class Int8Convolutions:
    planned: int
    executed: int  # of the planned ones, on integers

    @classmethod
    def of(cls, layers: tuple[LayerReport, ...]) -> Self:
        planned = [layer for layer in layers if layer.planned == "int8"]
        return cls(len(planned), sum(layer.executed["int8"] in INT8_NAMES for layer in planned))
