"""The operations that an engine executes, and their times."""

from dataclasses import dataclass
from typing import Final

CONVOLUTION: Final = "Convolution"
CONVERSIONS: Final = frozenset({"Reorder", "Convert"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of an execution graph, with all that was fused into it.

    kind and precision, that of its first input, are the runtime's names. macs are the
    multiply-accumulates of a convolution, 0 for any other operation.
    """

    name: str
    kind: str
    precision: str
    kernel: str
    ms: float
    macs: int
    layers: tuple[str, ...]  # the ONNX nodes

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution; anything else is cost around the convolutions."""
        return self.kind == CONVOLUTION

    @property
    def converts(self) -> bool:
        """Whether it only changes the type or the layout of a tensor."""
        return self.kind in CONVERSIONS
