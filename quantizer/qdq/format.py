"""How the Q/DQ graph for one runtime is written."""

from dataclasses import dataclass
from typing import Final

from quantizer.int8 import WeightScheme


@dataclass(frozen=True, slots=True)
class QdqFormat:
    """What a runtime requires of a Q/DQ graph; only `weight_bits` changes the represented values.

    symmetric: the runtime accepts no zero point but 0. weight_bits: of which its kernels add the
    products without overflow. half_scales: float16 must hold the scales,
    because the graph has float16 layers. explicit: Q/DQ is also inserted after each pass-through
    operator that is to run in int8, and on the other branch of an Add that joins a quantized
    convolution. float8: it has kernels for FP8 in place of int8 as well.
    """

    symmetric: bool = False
    weight_bits: int = 8
    half_scales: bool = False
    explicit: bool = False
    float8: bool = False

    @property
    def weight_scheme(self) -> WeightScheme:
        """How weights are represented for this runtime."""
        return WeightScheme(bits=self.weight_bits, half=self.half_scales)


PLAIN: Final = QdqFormat()
# TensorRT runs in int8 what stands between a DequantizeLinear and a QuantizeLinear, and nothing
# else. Source: its developer guide, section "Explicit Quantization".
TENSORRT: Final = QdqFormat(symmetric=True, half_scales=True, explicit=True)
