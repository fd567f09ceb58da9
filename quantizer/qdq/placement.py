"""Policy: which convolutions run in int8, which tensors get Q/DQ for that, what stays float, why.

1. A convolution with constant weights is quantized unless it is part of the decode tail, or the
   caller names it: what the user asked for, and what the measured sensitivity frees. No layer is
   float for its kind: first, last and depthwise convolutions stay float where measuring says so.
2. The outputs of the last convolutions are not quantized, and with them the whole decode tail stays
   float, so boxes and scores never share a scale.
3. The input of a quantized convolution is quantized where it is computed: through Concat, MaxPool,
   Resize and the like the pair moves up to each source, so that these run in int8 as well.
4. All inputs of such a Concat share one range; else they would have to be requantized to meet.
5. In an explicit dialect the pair is repeated after each of these movers, which changes no value;
   and where an Add joins a quantized convolution, its other branch is quantized as well.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

import onnx

from quantizer.model.decode_tail import decode_tail, last_convolutions
from quantizer.model.graph import Graph, layer_name, silu_input
from quantizer.qdq.format import PLAIN, QdqFormat

# Movers that Q/DQ pairs move through: those that runtimes execute on int8 as they do on float.
TRANSPARENT: Final = frozenset(
    {"Concat", "DepthToSpace", "Gather", "MaxPool", "Resize", "Slice", "SpaceToDepth", "Split"}
)
ACTIVATIONS: Final = frozenset({"Clip", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Swish"})


@dataclass(frozen=True, slots=True)
class ActivationSite:
    """A tensor that gets a Q/DQ pair, read by all its consumers; sites of a group share a range."""

    tensor: str
    group: str


@dataclass(frozen=True, slots=True)
class WeightSite:
    """The constant weight of a quantized convolution; axis is that of its output channels."""

    layer: str
    tensor: str
    axis: int = 0
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
    echoes: tuple[ActivationSite, ...] = ()  # of the pairs in front of a mover, behind it

    @property
    def layers(self) -> tuple[str, ...]:
        """The convolutions that are quantized."""
        return tuple(site.layer for site in self.weights)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The activations that get Q/DQ."""
        return tuple(site.tensor for site in self.activations)

    def as_text(self) -> str:
        """One line for each decision, for people and for tests."""
        lines = [f"int8  {site.layer}" for site in self.weights]
        lines += [f"float {kept.layer}: {kept.reason}" for kept in self.kept_float]
        lines += [
            f"q/dq  {site.tensor}" + (f" shares {site.group}" if site.group != site.tensor else "")
            for site in self.activations
        ]
        lines += [f"again {site.tensor} as {site.group}" for site in self.echoes]
        return "\n".join(lines) + "\n"


def plan_placement(
    graph: Graph,
    floats: Mapping[str, str] = MappingProxyType({}),
    dialect: QdqFormat = PLAIN,
) -> Placement:
    """Apply the rules above; `floats` are the layers to leave float and the reason of each."""
    tail = {id(node) for node in decode_tail(graph)}
    weights, kept, inputs = [], [], []
    for node in graph.nodes:
        if node.op_type != "Conv":
            continue
        layer = layer_name(node)
        reason = _reason_for_float(graph, node, tail) or floats.get(layer)
        if reason is None:
            reads = tuple(_sources(graph, node.input[0]))
            weights.append(WeightSite(layer, node.input[1], reads=reads))
            inputs.append(node.input[0])
        else:
            kept.append(KeptFloat(layer, reason))
    if dialect.explicit:
        inputs += _residuals(graph, {site.layer for site in weights}, tail)
    sites = _activation_sites(graph, inputs)
    echoes = _echoes(graph, sites, tail) if dialect.explicit else ()
    return Placement(sites, tuple(weights), tuple(kept), echoes)


def asked_for(graph: Graph, patterns: Sequence[str]) -> dict[str, str]:
    """The convolutions that shell patterns name, and the reason to leave them float."""
    return {
        layer_name(node): f"asked for by {pattern}"
        for node in graph.nodes
        for pattern in reversed(patterns)
        if node.op_type == "Conv" and fnmatchcase(layer_name(node), pattern)
    }


def first_and_last(graph: Graph) -> dict[str, str]:
    """The convolutions next to the image and to the output, and that as the reason."""
    last = last_convolutions(graph)
    first = [
        node
        for node in graph.nodes
        if node.op_type == "Conv" and _reads_image(graph, node.input[0])
    ]
    return {layer_name(node): "first convolution" for node in first} | {
        layer_name(node): "last convolution" for node in last
    }


def _reads_image(graph: Graph, tensor: str) -> bool:
    """Whether no convolution lies between the image and this tensor."""
    maker = graph.producer.get(tensor)
    if maker is None:
        return True
    return maker.op_type != "Conv" and all(
        _reads_image(graph, name) for name in graph.activations_of(maker)
    )


def _reason_for_float(graph: Graph, node: onnx.NodeProto, tail: set[int]) -> str | None:
    if id(node) in tail:
        return "decode"
    return None if graph.is_constant(node.input[1]) else "computed weights"


def _residuals(graph: Graph, quantized: set[str], tail: set[int]) -> list[str]:
    """The other branch of each Add into which a quantized convolution leads."""
    order = {name: index for index, node in enumerate(graph.nodes) for name in node.output}
    found = []
    for node in graph.nodes:
        branches = sorted(graph.activations_of(node), key=lambda name: order.get(name, -1))
        if node.op_type == "Add" and id(node) not in tail and len(branches) == 2:
            # The later branch is the convolution's: its kernel can take the sum in.
            skip, main = branches
            if _convolution_behind(graph, main) in quantized:
                found.append(skip)
    return found


def _convolution_behind(graph: Graph, tensor: str) -> str | None:
    """The convolution whose value this is, as it is or after its activation function."""
    node = graph.producer.get(tensor)
    if node is not None and node.op_type != "Conv":
        value = silu_input(graph, node) or (node.input[0] if node.op_type in ACTIVATIONS else "")
        node = graph.producer.get(value)
    return layer_name(node) if node is not None and node.op_type == "Conv" else None


def _echoes(
    graph: Graph, sites: tuple[ActivationSite, ...], tail: set[int]
) -> tuple[ActivationSite, ...]:
    """What comes out of movers that nothing but tensors of one group goes into."""
    groups = {site.tensor: site.group for site in sites}
    found = []
    for node in graph.nodes:
        if node.op_type not in TRANSPARENT or id(node) in tail or _interpolates(node):
            continue
        data = node.input if node.op_type == "Concat" else node.input[:1]
        entering = {groups.get(name) for name in data}
        group = entering.pop()
        if entering or group is None:
            continue
        fresh = [ActivationSite(name, group) for name in node.output if name not in groups]
        groups.update({site.tensor: group for site in fresh})
        found += fresh
    return tuple(found)


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
    """Where the values of a tensor are computed, looking up through transparent movers."""
    node = graph.producer.get(tensor)
    if node is None or node.op_type not in TRANSPARENT or _interpolates(node):
        return [tensor]
    data = graph.activations_of(node) if node.op_type == "Concat" else (node.input[0],)
    if len(data) < (len(node.input) if node.op_type == "Concat" else 1):
        return [tensor]  # a Concat with a constant: quantize what comes out of it
    return list(dict.fromkeys(source for name in data for source in _sources(graph, name)))


def _interpolates(node: onnx.NodeProto) -> bool:
    """A Resize that computes new values, which int8 would have to round once more."""
    mode = next((attr.s for attr in node.attribute if attr.name == "mode"), b"nearest")
    return node.op_type == "Resize" and mode != b"nearest"
