"""Where each convolution was planned to run, and what the runtime executes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from quantizer.compile.builder import INT8_NAMES, Built
from quantizer.compile.operations import Operation
from quantizer.qdq.placement import Placement


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One convolution: the plan, and what the runtime executes in each variant.

    `ms` and `gmac_per_s` are of the int8 engine, None where the runtime does not report them.
    """

    layer: str
    planned: str  # int8 or float
    reason: str  # why it stays float
    reads: tuple[str, ...]  # quantized activations
    executed: Mapping[str, str]
    ms: float | None = None
    gmac_per_s: float | None = None

    @classmethod
    def of_all(
        cls,
        placement: Placement,
        built: Mapping[str, Built],
        operations: Sequence[Operation] = (),
    ) -> tuple[Self, ...]:
        """Every convolution, quantized ones first, each in the graph's order."""
        plan = [(site.layer, "int8", "", site.reads) for site in placement.weights]
        plan += [(kept.layer, "float", kept.reason, ()) for kept in placement.kept_float]
        operation_of = {
            layer: each for each in operations if each.convolves for layer in each.layers
        }
        return tuple(
            cls(
                *described,
                {name: part.executed.get(described[0], "unknown") for name, part in built.items()},
                *_speed(operation_of.get(described[0])),
            )
            for described in plan
        )


def _speed(operation: Operation | None) -> tuple[float | None, float | None]:
    if operation is None:
        return None, None
    rate = round(operation.macs / operation.ms / 1e6, 1) if operation.ms else None
    return round(operation.ms, 3), rate


@dataclass(frozen=True, slots=True)
class Int8Convolutions:
    planned: int
    executed: int  # of the planned ones, on integers; of several GPUs, on one of them at least

    @classmethod
    def of(cls, layers: tuple[LayerReport, ...]) -> Self:
        planned = [layer for layer in layers if layer.planned == "int8"]
        return cls(len(planned), sum(_reads_int8(layer.executed["int8"]) for layer in planned))


def _reads_int8(executed: str) -> bool:
    """Of a build for several GPUs it may be "sm75 f16, sm89 i8"."""
    return not INT8_NAMES.isdisjoint(executed.replace(",", "").split())
