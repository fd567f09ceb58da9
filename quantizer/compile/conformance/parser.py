"""Rules of TensorRT's ONNX parser and of its typed networks: broken, there is no engine.

Sources: NvInfer.h of TensorRT 10 and 11 (IQuantizeLayer, IDequantizeLayer), and the checks that
onnx-tensorrt makes of these operators (QuantDequantLinearHelper).
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, defs

from quantizer.compile.conformance.network import (
    DEQUANTIZE,
    QUANTIZE,
    STANDARD,
    Complaint,
    Network,
    Rule,
    rule,
)
from quantizer.model.graph import attribute, layer_name

AXIS_OPSET: Final = 13
HALF_OPSET: Final = 19
ONNX_AXIS: Final = 1  # of Q and DQ, where they name none
HALVES: Final = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


@rule("build failure")
def zero_point_is_zero(network: Network) -> Iterator[Complaint]:
    """Quantization is symmetric: zero points are constant, and 0 (NvInfer.h; the parser)."""
    for node in network.parametrized():
        name = _zero_point(node)
        if name is None:
            continue
        if not network.graph.is_constant(name):
            yield node, "its zero point is computed, and only a constant 0 is taken"
        elif network.graph.constant(name).any():
            yield node, "its zero point is not 0, and TensorRT knows symmetric quantization only"


@rule("build failure")
def integers_are_signed(network: Network) -> Iterator[Complaint]:
    """There is no uint8 quantization (the parser)."""
    for node in network.parametrized():
        integers = _zero_point(node) or node.input[0]
        if network.types.get(integers) == TensorProto.UINT8:
            yield node, "it is in uint8, and TensorRT quantizes to int8 only"


@rule("build failure")
def scale_is_positive(network: Network) -> Iterator[Complaint]:
    """Scales are above 0 (NvInfer.h; the parser), and of use only below infinity."""
    for node in network.parametrized():
        scale = network.scale(node)
        if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
            yield node, "a scale of it is not a positive number"


@rule("build failure")
def scale_is_constant(network: Network) -> Iterator[Complaint]:
    """Scales are known when the engine is built (NvInfer.h up to TensorRT 10.12)."""
    for node in network.parametrized():
        if network.scale(node) is None:
            yield node, f"its scale {node.input[1]} is computed"


@rule("build failure")
def activation_has_one_scale(network: Network) -> Iterator[Complaint]:
    """Only weights are quantized per channel (NvInfer.h)."""
    for node in network.parametrized():
        scale = network.scale(node)
        if scale is not None and scale.size != 1 and not network.works_on_a_constant(node):
            yield node, f"an activation has {scale.size} scales, and only weights may"


@rule("build failure")
def scales_are_as_many_as_channels(network: Network) -> Iterator[Complaint]:
    """One scale, or one for each step along the axis; as many zero points (the parser)."""
    for node in network.parametrized():
        scale, zero, shape = network.scale(node), _zero_point(node), network.shape(node.input[0])
        if scale is None:
            continue
        if zero is not None and network.graph.is_constant(zero):
            zeros = network.graph.constant(zero).size
            if zeros != scale.size:
                yield node, f"it has {scale.size} scales and {zeros} zero points"
                continue
        axis = attribute(node, "axis", ONNX_AXIS)
        if scale.size == 1 or shape is None:
            continue
        if not -len(shape) <= axis < len(shape) or shape[axis] != scale.size:
            yield node, f"its {scale.size} scales do not go with axis {axis} of {list(shape)}"


@rule("build failure")
def quantized_is_dequantized(network: Network) -> Iterator[Complaint]:
    """Integers go from a Q to DQs and nowhere else; other layers are typed by their floats."""
    for node in network.of_kind(QUANTIZE):
        others = [each for each in network.readers(node.output[0]) if each.op_type != DEQUANTIZE]
        if others:
            yield node, f"{layer_name(others[0])} reads its integers without a DequantizeLinear"


@rule("build failure")
def dequantized_was_quantized(network: Network) -> Iterator[Complaint]:
    """A DQ reads what a Q made, or a constant weight (NvInfer.h; the guide, quantized weights)."""
    for node in network.of_kind(DEQUANTIZE):
        source = node.input[0]
        if network.maker(source, QUANTIZE) is None and not network.graph.is_constant(source):
            yield node, f"it reads {source}, which is neither quantized nor constant"


@rule("build failure")
def bias_is_float(network: Network) -> Iterator[Complaint]:
    """Nothing is dequantized from int32, as ONNX Runtime writes biases (onnxruntime #14229)."""
    for node in network.of_kind(DEQUANTIZE):
        if network.types.get(node.input[0]) == TensorProto.INT32:
            yield node, "it dequantizes int32; biases have to stay float"


@rule("build failure")
def opset_knows_the_scale(network: Network) -> Iterator[Complaint]:
    """Q and DQ have an axis from opset 13 on and float16 scales from 19 on (ONNX's change log)."""
    for node in network.parametrized():
        scale = network.scale(node)
        if network.opset < AXIS_OPSET and scale is not None and scale.size != 1:
            yield node, f"scales along an axis need opset {AXIS_OPSET}, this is {network.opset}"
        elif network.opset < HALF_OPSET and network.types.get(node.input[1]) in HALVES:
            yield node, f"scales in 16 bits need opset {HALF_OPSET}, this is {network.opset}"


@rule("build failure")
def types_agree(network: Network) -> Iterator[Complaint]:
    """A strongly typed network, TensorRT 11's only kind, converts nothing unasked.

    So inputs for which the operator's definition has one type variable are of one type: a Q's scale
    and its input, a convolution's input, weight and bias, the terms of an Add or a Concat.
    """
    for node in network.graph.nodes:
        seen: defaultdict[str, set[int]] = defaultdict(set)
        for variable, tensor in zip(_variables(node, network.opset), node.input, strict=False):
            if tensor in network.types:
                seen[variable].add(network.types[tensor])
        for types in seen.values():
            if len(types) > 1:
                names = sorted(TensorProto.DataType.Name(each).lower() for each in types)
                yield node, f"its inputs are in {' and '.join(names)}"


def _zero_point(node: onnx.NodeProto) -> str | None:
    return node.input[2] if len(node.input) > 2 and node.input[2] else None


def _variables(node: onnx.NodeProto, opset: int) -> list[str]:
    """The type variable of each input."""
    if node.domain not in STANDARD or not defs.has(node.op_type):
        return []
    inputs = defs.get_schema(node.op_type, max_inclusive_version=opset).inputs
    names = [each.type_str for each in inputs if each.is_homogeneous]
    # The last of them may stand for any number of inputs.
    return names + names[-1:] * len(node.input) if len(names) == len(inputs) else names


RULES: Final[tuple[Rule, ...]] = (
    zero_point_is_zero,
    integers_are_signed,
    scale_is_positive,
    scale_is_constant,
    activation_has_one_scale,
    scales_are_as_many_as_channels,
    quantized_is_dequantized,
    dequantized_was_quantized,
    bias_is_float,
    opset_knows_the_scale,
    types_agree,
)
