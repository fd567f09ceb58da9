"""Decide which convolutions run in int8, which tensors get Q/DQ for that, and what stays float.

1. A convolution with constant weights is quantized unless it is part of the decode tail or named in
   `floats`: by the user, or because the measured sensitivity says so. No layer stays float for its
   kind: first, last and depthwise convolutions stay float only where the measurement says so.
2. The outputs of the last convolutions are not quantized, so the whole decode tail stays float, and
   boxes and scores never share a scale.
3. The input of a quantized convolution is quantized where it is computed: Q/DQ moves up through
   Concat, MaxPool, Resize and other pass-through operators to each source, so that these run in
   int8 as well.
4. All inputs of such a Concat share one range; otherwise they would be requantized before it.
5. In an explicit format Q/DQ is propagated: it is repeated after each of these pass-through
   operators, which changes no value; and where an Add joins a quantized convolution, its other
   branch is quantized as well.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

import onnx

from quantizer.model.decode_tail import decode_tail
from quantizer.model.graph import Graph, layer_name, silu_input
from quantizer.qdq.format import PLAIN, QdqFormat

# The pass-through operators that runtimes execute on int8 as they do on float.
INT8_PASS_THROUGH_OPS: Final = frozenset(
    {"Concat", "DepthToSpace", "Gather", "MaxPool", "Resize", "Slice", "SpaceToDepth", "Split"}
)
ACTIVATIONS: Final = frozenset({"Clip", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Swish"})


@dataclass(frozen=True, slots=True)
class ActivationSite:
    """A tensor that gets Q/DQ, which all its readers read; sites of one group share a range."""

    tensor: str
    group: str


@dataclass(frozen=True, slots=True)
class WeightSite:
    """The constant weight of a quantized convolution; its output channels are on axis 0."""

    layer: str
    tensor: str
    reads: tuple[str, ...] = ()  # the quantized activations that reach it


@dataclass(frozen=True, slots=True)
class KeptFloat:
    """A convolution that stays float, and why."""

    layer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Placement:
    """The plan, in the graph's order."""

    activations: tuple[ActivationSite, ...]
    weights: tuple[WeightSite, ...]
    kept_float: tuple[KeptFloat, ...]
    propagated: tuple[ActivationSite, ...] = ()  # Q/DQ repeated after pass-through operators

    @property
    def layers(self) -> tuple[str, ...]:
        """The convolutions that are quantized."""
        return tuple(site.layer for site in self.weights)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The activations that get Q/DQ, without the propagated ones."""
        return tuple(site.tensor for site in self.activations)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Of these, those that share a range, by the group's name."""
        members: defaultdict[str, list[str]] = defaultdict(list)
        for site in self.activations:
            members[site.group].append(site.tensor)
        return {group: tuple(tensors) for group, tensors in members.items()}

    def only(self, group: str) -> "Placement":
        """Of this group alone: no convolution is quantized."""
        activations, propagated = (
            tuple(site for site in sites if site.group == group)
            for sites in (self.activations, self.propagated)
        )
        return Placement(activations, (), self.kept_float, propagated)


def plan_placement(
    graph: Graph,
    floats: Mapping[str, str] = MappingProxyType({}),
    qdq_format: QdqFormat = PLAIN,
) -> Placement:
    """Apply the rules above; `floats` maps the layers to keep float to the reason for each."""
    tail = {id(node) for node in decode_tail(graph)}
    weights, kept, inputs = [], [], []
    for node in graph.nodes:
        if node.op_type != "Conv":
            continue
        layer = layer_name(node)
        if id(node) in tail:
            reason: str | None = "decode"
        elif not graph.is_constant(node.input[1]):
            reason = "computed weights"
        else:
            reason = floats.get(layer)
        if reason is None:
            reads = tuple(_sources(graph, node.input[0]))
            weights.append(WeightSite(layer, node.input[1], reads))
            inputs.append(node.input[0])
        else:
            kept.append(KeptFloat(layer, reason))
    if qdq_format.explicit:
        inputs += _other_branches(graph, {site.layer for site in weights}, tail)
    sites = _activation_sites(graph, inputs)
    propagated = _propagated(graph, sites, tail) if qdq_format.explicit else ()
    return Placement(sites, tuple(weights), tuple(kept), propagated)


def layers_matching(graph: Graph, patterns: Sequence[str]) -> dict[str, str]:
    """The convolutions that shell patterns name, and the reason to keep them float."""
    return {
        layer_name(node): f"named by {pattern}"
        for node in graph.nodes
        for pattern in reversed(patterns)
        if node.op_type == "Conv" and fnmatchcase(layer_name(node), pattern)
    }


def _other_branches(graph: Graph, quantized: set[str], tail: set[int]) -> list[str]:
    """For each Add that reads the output of a quantized convolution: its other input."""
    order = {name: index for index, node in enumerate(graph.nodes) for name in node.output}
    others = []
    for node in graph.nodes:
        branches = sorted(graph.activations_of(node), key=lambda name: order.get(name, -1))
        if node.op_type == "Add" and id(node) not in tail and len(branches) == 2:
            # The branch that is computed last is the convolution's: its kernel can add the other.
            other, main = branches
            if computed_by(graph, main) in quantized:
                others.append(other)
    return others


def computed_by(graph: Graph, tensor: str) -> str | None:
    """The convolution that computes a tensor, directly or through its activation function."""
    node = graph.producer.get(tensor)
    if node is not None and node.op_type != "Conv":
        value = silu_input(graph, node) or (node.input[0] if node.op_type in ACTIVATIONS else "")
        node = graph.producer.get(value)
    return layer_name(node) if node is not None and node.op_type == "Conv" else None


def _propagated(
    graph: Graph, sites: tuple[ActivationSite, ...], tail: set[int]
) -> tuple[ActivationSite, ...]:
    """The outputs of pass-through operators whose inputs all belong to one group."""
    groups = {site.tensor: site.group for site in sites}
    propagated: list[ActivationSite] = []
    for node in graph.nodes:
        if id(node) in tail or not _passes_int8_through(node):
            continue
        data = node.input if node.op_type == "Concat" else node.input[:1]
        entering = {groups.get(name) for name in data}
        group = entering.pop()
        if entering or group is None:
            continue
        added = [ActivationSite(name, group) for name in node.output if name not in groups]
        groups.update({site.tensor: group for site in added})
        propagated += added
    return tuple(propagated)


def _activation_sites(graph: Graph, inputs: list[str]) -> tuple[ActivationSite, ...]:
    """The sources of each quantized input (rule 3), grouped by the Concats they meet in (4)."""
    leader: dict[str, str] = {}

    def root(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for name in inputs:
        first, *others = _sources(graph, name)
        for other in others:
            leader[root(other)] = root(first)
        root(first)
    groups: defaultdict[str, list[str]] = defaultdict(list)
    ordered = [graph.input, *(name for node in graph.nodes for name in node.output)]
    for name in ordered:
        if name in leader:
            groups[root(name)].append(name)
    named = {name: members[0] for members in groups.values() for name in members}
    return tuple(ActivationSite(name, named[name]) for name in ordered if name in named)


def _sources(graph: Graph, tensor: str) -> list[str]:
    """Where the values of a tensor are computed, looking up through pass-through operators."""
    node = graph.producer.get(tensor)
    if node is None or not _passes_int8_through(node):
        return [tensor]
    data = list(node.input) if node.op_type == "Concat" else [node.input[0]]
    if node.op_type == "Concat" and any(map(graph.is_constant, data)):
        return [tensor]  # a Concat with a constant: its output is quantized
    return list(dict.fromkeys(source for name in data for source in _sources(graph, name)))


def _passes_int8_through(node: onnx.NodeProto) -> bool:
    """Whether Q/DQ moves through: not if a Resize interpolates, since int8 would round again."""
    mode = next((attr.s for attr in node.attribute if attr.name == "mode"), b"nearest")
    interpolates = node.op_type == "Resize" and mode != b"nearest"
    return node.op_type in INT8_PASS_THROUGH_OPS and not interpolates
