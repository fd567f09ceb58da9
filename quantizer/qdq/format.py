"""What a runtime wants of a Q/DQ graph, beyond the same numbers."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class QdqFormat:
    """How the graph for one runtime is written.

    symmetric: it knows no zero point but 0. half_scales: float16 has to hold the scales, as a graph
    with float16 layers does. explicit: a pair also goes after every mover that is to run in int8,
    and on the other branch of an Add that joins a quantized convolution.
    """

    symmetric: bool = False
    half_scales: bool = False
    explicit: bool = False


PLAIN: Final = QdqFormat()
# TensorRT runs in int8 what stands between a DequantizeLinear and a QuantizeLinear, and nothing
# else: its guide's section on explicit quantization.
TENSORRT: Final = QdqFormat(symmetric=True, half_scales=True, explicit=True)
