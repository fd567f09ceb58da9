"""Equalise the channels of a tensor whose scale a few of them decide.

A quantized tensor has one scale. Where few channels reach many times as far as the others, hardly a
step is left for the others. Such a tensor is multiplied by a factor of 1 or more for each channel,
behind its activation function, and the weights that read it are divided by the factors: in float
the graph computes what it did before.

The factors are (peak of the tensor / peak of the channel)**exponent, at most a limit. Of a few
exponents and limits those are taken that lead to the least expected noise in the outputs of the
readers. It has two parts: the rounding of the tensor, through the divided weights; and the rounding
of the weights, whose steps are larger where small and large factors meet in one output channel.

Source of the idea: Xiao et al., "SmoothQuant" (2022), section 4. There the operator before takes
the factors in; through SiLU they cannot pass, so a Mul multiplies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Self

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantizer.calibration.channels import Channels, Doubles
from quantizer.model.graph import Graph, attribute, drop_unread, layer_name
from quantizer.qdq.placement import Placement, computed_by
from service.vision.detections import Floats

WORST_NOISE: Final = 10 ** (-20 / 10)  # of the signal: a tensor with less is left as it is
LEAST_GAIN: Final = 4.0  # and so is one whose noise would not become this many times smaller
EXPONENTS: Final = (0.25, 0.5, 0.75, 1.0)
LIMITS: Final = tuple(2.0**power for power in range(1, 9))
STEPS: Final = 255
WEIGHT_STEPS: Final = 127  # on each side of 0
LEAST_PEAK: Final = 1e-6  # of a channel, as a fraction of the tensor's


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A convolution that reads the tensor: dense, or depthwise with one output per channel."""

    weight: Doubles
    depthwise: bool

    @classmethod
    def of(cls, graph: Graph, node: onnx.NodeProto) -> Self | None:
        """None for a convolution in several groups of channels."""
        weight = graph.constant(node.input[1]).astype(np.float64)
        groups = attribute(node, "group", 1)
        depthwise = groups > 1
        if depthwise and weight.shape[:2] != (groups, 1):
            return None
        return cls(weight, depthwise)

    def divided(self, factors: Doubles) -> Doubles:
        """The weight for the multiplied tensor."""
        shape = [1] * self.weight.ndim
        shape[0 if self.depthwise else 1] = -1
        return self.weight / factors.reshape(shape)

    def noise(self, step: float, channels: Channels, factors: Doubles) -> float:
        """The mean over the outputs of their noise as a fraction of their variance, at most 1.

        `step` is that of the multiplied tensor.
        """
        rounding = step**2 / 12 / factors**2
        if self.depthwise:  # its weights keep their relations, so their rounding stays the same
            noise, variance = rounding, channels.variance
        else:
            taps = tuple(range(2, self.weight.ndim))
            squares = np.square(self.weight).sum(axis=taps)  # f64[O,C]
            steps = np.abs(self.divided(factors)).max(axis=(1, *taps)) / WEIGHT_STEPS
            of_weights = steps**2 / 12 * self.weight[0, 0].size * (channels.power @ factors**2)
            noise, variance = squares @ rounding + of_weights, squares @ channels.variance
        shares = np.divide(noise, variance, out=np.ones_like(noise), where=variance > noise)
        return float(shares.mean())


def find_readers(graph: Graph, placement: Placement) -> dict[str, Sequence[Reader]]:
    """The readers of each tensor that a convolution computes, through its activation function, and
    that only quantized convolutions read."""
    layers = set(placement.layers)
    found: dict[str, Sequence[Reader]] = {}
    for tensor, nodes in graph.consumers.items():
        quantized = all(layer_name(node) in layers for node in nodes)
        if quantized and tensor not in graph.outputs and computed_by(graph, tensor) is not None:
            readers = [Reader.of(graph, node) for node in nodes]
            known = [reader for reader in readers if reader is not None]
            if len(known) == len(readers):
                found[tensor] = known
    return found


def find_factors(
    readers: Mapping[str, Sequence[Reader]],
    channels: Mapping[str, Channels],
    floors: Mapping[str, float],
) -> dict[str, Floats]:
    """f32[C] for each tensor that gains much; `floors` are the analytic lower bounds."""
    factors = {}
    for tensor, measured in channels.items():
        before, after, best = _best(readers[tensor], measured, floors.get(tensor))
        if before > WORST_NOISE and before > LEAST_GAIN * after:
            factors[tensor] = best.astype(np.float32)
    return factors


def equalise(graph: Graph, factors: Mapping[str, Floats]) -> Graph:
    """The graph with these tensors multiplied, and the weights of their readers divided.

    The shapes of the tensors must be known.
    """
    if not factors:
        return graph
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    constants, described = model.graph.initializer, model.graph.value_info
    nodes: list[onnx.NodeProto] = []
    for original in graph.nodes:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        nodes.append(node)
        reader = Reader.of(graph, node) if node.input[:1] and node.input[0] in factors else None
        if reader is not None:
            tensor, name = node.input[0], f"{layer_name(node)}/divided_weight"
            weight = reader.divided(factors[tensor].astype(np.float64)).astype(np.float32)
            constants.append(numpy_helper.from_array(weight, name))
            node.input[:2] = [_multiplied(tensor), name]
        for tensor in factors.keys() & set(node.output):
            shape, name = graph.shapes[tensor], f"{tensor}/factors"
            values = factors[tensor].reshape(-1, *(1 for _ in shape[2:]))
            constants.append(numpy_helper.from_array(values, name))
            nodes.append(helper.make_node("Mul", [tensor, name], [_multiplied(tensor)]))
            described.append(
                helper.make_tensor_value_info(_multiplied(tensor), TensorProto.FLOAT, shape)
            )
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    drop_unread(model)
    return Graph.of(model)


def _multiplied(tensor: str) -> str:
    return f"{tensor}/equalised"


def _best(
    readers: Sequence[Reader], channels: Channels, floor: float | None
) -> tuple[float, float, Doubles]:
    """The expected noise power without factors, that with the best, and these f64[C]."""
    largest = max(channels.peak.max(), np.finfo(np.float64).tiny)
    peak = np.maximum(channels.peak, LEAST_PEAK * largest)

    def noise(factors: Doubles) -> float:
        high = (peak * factors).max()
        low = -high if floor is None else floor * factors.max()
        step = (high - low) / STEPS
        return max(reader.noise(step, channels, factors) for reader in readers)

    tried = [
        np.clip((largest / peak) ** exponent, 1, limit)
        for exponent, limit in product(EXPONENTS, LIMITS)
    ]
    best = min(tried, key=noise)
    return noise(np.ones_like(peak)), noise(best), best
