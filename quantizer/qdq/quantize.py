"""Histograms -> ranges -> parameters -> the Q/DQ graph. Pure: no files, no images."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import reduce
from typing import Self

import onnx

from quantizer.calibration.analytic_bounds import lower_bounds
from quantizer.calibration.histogram import Histogram, merge
from quantizer.calibration.ranges import RANGE_RULES, RangeRule
from quantizer.int8 import QuantParams, Range, Scheme, activation_params
from quantizer.model.graph import Graph
from quantizer.qdq.bias import correct_biases
from quantizer.qdq.insertion import insert_qdq
from quantizer.qdq.placement import Placement
from quantizer.qdq.weights import Weights
from service.vision.detections import Floats


@dataclass(frozen=True, slots=True, eq=False)
class GroupRange:
    """The range of tensors that share one, and their analytic lower bound, if they have one.

    factor: by which the upper bound was multiplied that the rule chose.
    """

    bounds: Range
    floor: float | None
    params: QuantParams
    factor: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """The Q/DQ graph, and the range of each group of tensors in it by the group's name."""

    model: onnx.ModelProto
    ranges: Mapping[str, GroupRange]


class Ranges:
    """Chooses the range of a group of tensors by `rule`, once for each group.

    The rule does not choose the range of the image: it is `image_range`, with which each of the 256
    values of a byte is one step of the asymmetric grid.
    """

    def __init__(
        self,
        graph: Graph,
        histograms: Mapping[str, Histogram],
        rule: RangeRule,
        scheme: Scheme,
        image_range: Range,
    ) -> None:
        self._image = (graph.input,)
        self._floors = lower_bounds(graph)
        self._histograms = histograms
        self._rule = RANGE_RULES[rule]
        self._scheme = scheme
        self._image_range = image_range
        self._known: dict[tuple[str, ...], GroupRange] = {}

    def of(self, tensors: tuple[str, ...]) -> GroupRange:
        """The range that these tensors share."""
        if tensors not in self._known:
            floor = shared_floor([self._floors.get(tensor) for tensor in tensors])
            if tensors == self._image:
                bounds = self._image_range
            else:
                histogram = reduce(merge, (self._histograms[tensor] for tensor in tensors))
                bounds = self._rule(histogram, floor, self._scheme)
            params = activation_params(bounds, self._scheme)
            self._known[tensors] = GroupRange(bounds, floor, params)
        return self._known[tensors]

    def scaled(self, factors: Mapping[tuple[str, ...], float]) -> Self:
        """The same, but the upper bounds of these ranges, not of others with one of their tensors,
        multiplied by the factors."""
        other = copy(self)
        other._known = dict(self._known)
        for tensors, factor in factors.items():
            chosen = self.of(tensors)
            bounds = Range(chosen.bounds.low, chosen.bounds.high * factor)
            params = activation_params(bounds, self._scheme)
            factor *= chosen.factor
            other._known[tensors] = GroupRange(bounds, chosen.floor, params, factor)
        return other


def quantize(
    graph: Graph,
    placement: Placement,
    ranges: Ranges,
    weights: Weights,
    means: Mapping[str, Floats] | None = None,
) -> Quantized:
    """Choose the range of every group, quantize every weight, and insert Q/DQ.

    `means` holds the channel means of `averaged_tensors`; with them the biases are corrected.
    """
    if means is not None:
        graph = Graph.of(correct_biases(graph, placement, weights, means))
    chosen = {group: ranges.of(tensors) for group, tensors in placement.groups.items()}
    sites = (*placement.activations, *placement.propagated)
    params = {site.tensor: chosen[site.group].params for site in sites}
    return Quantized(insert_qdq(graph, placement, params, weights), chosen)


def shared_floor(floors: list[float | None]) -> float | None:
    """The lowest of the members' analytic bounds; None where one member has none."""
    known = [floor for floor in floors if floor is not None]
    return min(known) if len(known) == len(floors) else None
