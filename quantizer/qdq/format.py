"""How the Q/DQ graph for one runtime is written."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class QdqFormat:
    """What a runtime requires of a Q/DQ graph; none of it changes the values that are represented.

    symmetric: the runtime accepts no zero point but 0. half_scales: float16 must hold the scales,
    because the graph has float16 layers. explicit: Q/DQ is also inserted after each pass-through
    operator that is to run in int8, and on the other branch of an Add that joins a quantized
    convolution.
    """

    symmetric: bool = False
    half_scales: bool = False
    explicit: bool = False


PLAIN: Final = QdqFormat()
# TensorRT runs in int8 what stands between a DequantizeLinear and a QuantizeLinear, and nothing
# else. Source: its developer guide, section "Explicit Quantization".
TENSORRT: Final = QdqFormat(symmetric=True, half_scales=True, explicit=True)
