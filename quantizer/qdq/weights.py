"""The weights of the quantized convolutions as integers."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from quantizer.int8 import (
    PAPERS_WEIGHTS,
    QuantParams,
    Steps,
    WeightScheme,
    dequantize_array,
    quantize_array,
    weight_params,
)
from quantizer.model.graph import Graph
from quantizer.qdq.placement import WeightSite
from quantizer.study.activation_statistics import ActivationStatistics
from quantizer.study.rounding import round_adaptively
from service.vision.detections import Floats

NONE: Final[Mapping[str, ActivationStatistics]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """i8 of the weight's shape, and what a step means."""

    steps: Steps
    params: QuantParams

    @property
    def values(self) -> Floats:
        """The real values that the steps stand for."""
        return dequantize_array(self.steps, self.params)


class Weights:
    """Quantizes any convolution's weight by one scheme, once each.

    Where the `moments` of a layer's input are given, its weights are rounded adaptively.
    """

    def __init__(
        self,
        graph: Graph,
        scheme: WeightScheme = PAPERS_WEIGHTS,
        moments: Mapping[str, ActivationStatistics] = NONE,
    ) -> None:
        self._graph = graph
        self._scheme = scheme
        self._moments = moments
        self._known: dict[str, QuantizedWeight] = {}

    def of(self, site: WeightSite) -> QuantizedWeight:
        """The quantized weight of a convolution."""
        if site.tensor not in self._known:
            self._known[site.tensor] = self._quantized(site)
        return self._known[site.tensor]

    def _quantized(self, site: WeightSite) -> QuantizedWeight:
        weight = self._graph.constant(site.tensor).astype(np.float32)
        params = weight_params(weight, site.axis, self._scheme)
        moments = self._moments.get(site.layer)
        if moments is None:
            return QuantizedWeight(quantize_array(weight, params), params)
        return QuantizedWeight(round_adaptively(weight, params, moments), params)
