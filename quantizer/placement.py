"""Policy: which convolutions run in int8, which tensors get Q/DQ for that, what stays float, why.

1. A convolution with constant weights is quantized unless rule 2 to 5 keeps it float.
2. A prediction convolution stays float: the output is reached from it through no other convolution.
   With it the whole decode tail stays float, so boxes and scores never share a scale.
3. A convolution that reads the image rearranged (YOLOX's Focus) stays float: runtimes do not carry
   int8 through the rearrangement, and requantizing costs more than it wins. One that reads the
   image itself is quantized: pixels are 8-bit numbers, so its input loses nothing.
4. A depthwise convolution stays float: it sums a handful of products only, so the rounding of a
   tensor whose channels differ widely in range shows in full (YOLOX-nano collapses over it).
5. What the user names stays float.
6. The input of a quantized convolution is quantized where it is computed: through Concat, MaxPool,
   Resize and the like the pair moves up to each source, so that these run in int8 as well.
7. All inputs of such a Concat share one range; else they would have to be requantized to meet.
"""

from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
import onnx

from quantizer.graph import MOVERS, Graph, attribute, layer_name

# Movers that Q/DQ pairs move through: those that runtimes execute on int8 as they do on float.
TRANSPARENT: Final = frozenset(
    {"Concat", "DepthToSpace", "Gather", "MaxPool", "Resize", "Slice", "SpaceToDepth", "Split"}
)


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
        return "\n".join(lines) + "\n"


def plan_placement(graph: Graph, keep_float: tuple[str, ...] = ()) -> Placement:
    """Apply the rules above; `keep_float` are shell patterns of layer names."""
    predictions = {id(node) for node in prediction_convs(graph)}
    tail = {id(node) for node in decode_tail(graph)}
    convs = [node for node in graph.nodes if node.op_type == "Conv"]
    weights, kept, inputs = [], [], []
    for node in convs:
        reason = _reason_for_float(graph, node, keep_float, predictions, tail)
        if reason is None:
            weights.append(WeightSite(layer_name(node), node.input[1]))
            inputs.append(node.input[0])
        else:
            kept.append(KeptFloat(layer_name(node), reason))
    return Placement(_activation_sites(graph, inputs), tuple(weights), tuple(kept))


def prediction_convs(graph: Graph) -> list[onnx.NodeProto]:
    """The last convolutions on the way to the output (rule 2)."""
    return [node for node in _back_from_output(graph) if _ends_tail(graph, node)]


def decode_tail(graph: Graph) -> list[onnx.NodeProto]:
    """What turns the prediction convolutions' maps into the output."""
    return [node for node in _back_from_output(graph) if not _ends_tail(graph, node)]


def _back_from_output(graph: Graph) -> list[onnx.NodeProto]:
    """Nodes from which the output is reached through no prediction convolution, and those."""
    seen: dict[int, onnx.NodeProto] = {}
    waiting = list(graph.outputs)
    while waiting:
        node = graph.producer.get(waiting.pop())
        if node is None or id(node) in seen:
            continue
        seen[id(node)] = node
        if not _ends_tail(graph, node):
            waiting.extend(graph.activations_of(node))
    return [node for node in graph.nodes if id(node) in seen]


def _ends_tail(graph: Graph, node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and not _is_expectation(graph, node)


def _is_expectation(graph: Graph, node: onnx.NodeProto) -> bool:
    """DFL's convolution with the weights 0, 1, ..., k-1: an expected value, part of the decode."""
    if not graph.is_constant(node.input[1]):
        return False
    weight = graph.constant(node.input[1]).ravel()
    return len(weight) > 1 and bool(np.array_equal(weight, np.arange(len(weight))))


def _reads_rearranged_image(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether movers, at least one and nothing else, lie between the image and this node."""
    maker = graph.producer.get(node.input[0])
    if maker is None:
        return False
    while maker is not None and maker.op_type in MOVERS:
        maker = graph.producer.get(maker.input[0])
    return maker is None


def _reason_for_float(
    graph: Graph,
    node: onnx.NodeProto,
    keep_float: tuple[str, ...],
    predictions: set[int],
    tail: set[int],
) -> str | None:
    name = layer_name(node)
    pattern = next((pattern for pattern in keep_float if fnmatchcase(name, pattern)), None)
    if pattern is not None:
        return f"asked for by {pattern}"
    if id(node) in predictions:
        return "prediction convolution"
    if id(node) in tail:
        return "decode"
    if not graph.is_constant(node.input[1]):
        return "computed weights"
    if _reads_rearranged_image(graph, node):
        return "reads the image rearranged"
    if attribute(node, "group", 1) > 1 and graph.constant(node.input[1]).shape[1] == 1:
        return "depthwise convolution"
    return None


def _activation_sites(graph: Graph, inputs: list[str]) -> tuple[ActivationSite, ...]:
    """The sources of each quantized input (rule 6), grouped by the Concats they meet in (7)."""
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
