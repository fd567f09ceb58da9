"""The weights of the quantized convolutions as integers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quantizer.int8 import (
    PAPER_WEIGHTS,
    QuantParams,
    Steps,
    WeightScheme,
    dequantize_array,
    quantize_array,
    weight_params,
)
from quantizer.model.graph import Graph
from quantizer.qdq.placement import WeightSite
from service.vision.detections import Floats

# A layer's name, its weight and the weight's parameters -> the integers, of the weight's shape.
Rounding = Callable[[str, Floats, QuantParams], Steps]


def round_to_nearest(layer: str, weight: Floats, params: QuantParams) -> Steps:
    """Each weight by itself, ties to even."""
    return quantize_array(weight, params)


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """`steps` is i8 of the weight's shape."""

    steps: Steps
    params: QuantParams

    @property
    def values(self) -> Floats:
        """The real values that the steps represent."""
        return dequantize_array(self.steps, self.params)


class Weights:
    """Quantizes the weight of a convolution, once for each."""

    def __init__(
        self,
        graph: Graph,
        scheme: WeightScheme = PAPER_WEIGHTS,
        rounding: Rounding = round_to_nearest,
    ) -> None:
        self._graph = graph
        self._scheme = scheme
        self._rounding = rounding
        self._known: dict[str, QuantizedWeight] = {}

    def of(self, site: WeightSite) -> QuantizedWeight:
        """The quantized weight of a convolution."""
        if site.tensor not in self._known:
            weight = self._graph.constant(site.tensor).astype(np.float32)
            params = weight_params(weight, 0, self._scheme)
            steps = self._rounding(site.layer, weight, params)
            self._known[site.tensor] = QuantizedWeight(steps, params)
        return self._known[site.tensor]
