"""Histograms -> ranges -> parameters -> the Q/DQ graph. Pure: no files, no images."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import onnx

from quantizer.graph import Graph
from quantizer.histogram import Histogram, merge
from quantizer.int8 import QuantParams, Range, Scheme, activation_params
from quantizer.origins import lower_bounds
from quantizer.placement import Placement
from quantizer.qdq import insert_qdq
from quantizer.ranges import RANGE_RULES, RangeRule


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The range of one group of tensors, and the lower bound that their origin fixes, if any."""

    bounds: Range
    floor: float | None
    params: QuantParams


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """The Q/DQ graph and, by group, the choices that it was made from."""

    model: onnx.ModelProto
    choices: Mapping[str, Choice]


def quantize(
    graph: Graph,
    placement: Placement,
    histograms: Mapping[str, Histogram],
    rule: RangeRule,
    scheme: Scheme,
    image_range: Range,
) -> Quantized:
    """Choose the range of every group by `rule` and insert the pairs.

    The image is not left to the rule: its origin fixes both bounds (`image_range`), and with them
    each of its 256 values is one step of the asymmetric grid.
    """
    floors = lower_bounds(graph)
    members: defaultdict[str, list[str]] = defaultdict(list)
    for site in placement.activations:
        members[site.group].append(site.tensor)
    choices = {}
    for group, tensors in members.items():
        histogram = reduce(merge, (histograms[tensor] for tensor in tensors))
        floor = shared_floor([floors.get(tensor) for tensor in tensors])
        known = tensors == [graph.input]
        bounds = image_range if known else RANGE_RULES[rule](histogram, floor, scheme)
        choices[group] = Choice(bounds, floor, activation_params(bounds, scheme))
    params = {site.tensor: choices[site.group].params for site in placement.activations}
    return Quantized(insert_qdq(graph, placement, params), choices)


def shared_floor(floors: list[float | None]) -> float | None:
    """The lowest of the members' bounds; none where one member has none."""
    known = [floor for floor in floors if floor is not None]
    return min(known) if len(known) == len(floors) else None
