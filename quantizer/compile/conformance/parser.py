"""Rules of TensorRT's ONNX parser and of its typed networks: if one is broken, the build fails.

Sources: NvInfer.h of TensorRT 10 and 11 (IQuantizeLayer, IDequantizeLayer), and the checks of these
operators in onnx-tensorrt (QuantDequantLinearHelper).
"""

from collections import defaultdict
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, defs

from quantizer.compile.conformance.network import (
    DEQUANTIZE,
    QUANTIZE,
    STANDARD,
    Network,
    Rule,
    Violations,
)
from quantizer.model.graph import attribute, layer_name

AXIS_OPSET: Final = 13
HALF_OPSET: Final = 19
ONNX_AXIS: Final = 1  # of a Q or DQ that names none
HALVES: Final = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def zero_point_is_zero(network: Network) -> Violations:
    """Quantization is symmetric: zero points are constant, and 0 (NvInfer.h; the parser)."""
    for node in network.parametrized():
        name = _zero_point(node)
        if name is None:
            continue
        if not network.graph.is_constant(name):
            yield node, "its zero point is computed, but must be a constant 0"
        elif network.graph.constant(name).any():
            yield node, "its zero point is not 0, but TensorRT supports symmetric quantization only"


def integers_are_signed(network: Network) -> Violations:
    """There is no uint8 quantization (the parser)."""
    for node in network.parametrized():
        integers = _zero_point(node) or node.input[0]
        if network.types.get(integers) == TensorProto.UINT8:
            yield node, "it is in uint8, but TensorRT quantizes to int8 only"


def scale_is_positive(network: Network) -> Violations:
    """Scales are above 0 (NvInfer.h; the parser) and finite."""
    for node in network.parametrized():
        scale = network.scale(node)
        if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
            yield node, "it has a scale that is not a positive number"


def scale_is_constant(network: Network) -> Violations:
    """Scales are constants (NvInfer.h up to TensorRT 10.12)."""
    for node in network.parametrized():
        if network.scale(node) is None:
            yield node, f"its scale {node.input[1]} is computed"


def activation_has_one_scale(network: Network) -> Violations:
    """Only weights are quantized per channel (NvInfer.h)."""
    for node in network.parametrized():
        scale = network.scale(node)
        if scale is not None and scale.size != 1 and not network.works_on_a_constant(node):
            yield node, f"an activation has {scale.size} scales, but only weights may"


def scales_are_as_many_as_channels(network: Network) -> Violations:
    """One scale, or one for each index of the axis; as many zero points (the parser)."""
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
            yield node, f"its {scale.size} scales do not fit axis {axis} of {list(shape)}"


def quantized_is_dequantized(network: Network) -> Violations:
    """Only DQs read the integers of a Q; all other layers read floats."""
    for node in network.of_type(QUANTIZE):
        others = [each for each in network.readers(node.output[0]) if each.op_type != DEQUANTIZE]
        if others:
            yield node, f"{layer_name(others[0])} reads its integers without a DequantizeLinear"


def dequantized_was_quantized(network: Network) -> Violations:
    """A DQ reads the output of a Q or a constant weight (NvInfer.h; the guide)."""
    for node in network.of_type(DEQUANTIZE):
        source = node.input[0]
        if network.producer(source, QUANTIZE) is None and not network.graph.is_constant(source):
            yield node, f"it reads {source}, which is neither quantized nor constant"


def bias_is_float(network: Network) -> Violations:
    """No DQ reads int32, the type in which ONNX Runtime writes biases (onnxruntime #14229)."""
    for node in network.of_type(DEQUANTIZE):
        if network.types.get(node.input[0]) == TensorProto.INT32:
            yield node, "it dequantizes int32, but biases must stay float"


def opset_knows_the_scale(network: Network) -> Violations:
    """Q and DQ have an axis since opset 13, and float16 scales since 19 (ONNX's change log)."""
    for node in network.parametrized():
        scale = network.scale(node)
        if network.opset < AXIS_OPSET and scale is not None and scale.size != 1:
            yield node, f"scales along an axis need opset {AXIS_OPSET}, this is {network.opset}"
        elif network.opset < HALF_OPSET and network.types.get(node.input[1]) in HALVES:
            yield node, f"scales in 16 bits need opset {HALF_OPSET}, this is {network.opset}"


def types_agree(network: Network) -> Violations:
    """A strongly typed network, TensorRT 11's only kind, converts no types by itself.

    So inputs that share a type variable in the operator's definition have one type: a Q's scale and
    its input; a convolution's input, weight and bias; the terms of an Add or a Concat.
    """
    for node in network.graph.nodes:
        types_of: defaultdict[str, set[int]] = defaultdict(set)
        for variable, tensor in zip(_variables(node, network.opset), node.input, strict=False):
            if tensor in network.types:
                types_of[variable].add(network.types[tensor])
        for types in types_of.values():
            if len(types) > 1:
                names = sorted(TensorProto.DataType.Name(each).lower() for each in types)
                yield node, f"its inputs are in {' and '.join(names)}"


def _zero_point(node: onnx.NodeProto) -> str | None:
    return node.input[2] if len(node.input) > 2 and node.input[2] else None


def _variables(node: onnx.NodeProto, opset: int) -> list[str]:
    """The name of each input's type variable."""
    if node.domain not in STANDARD or not defs.has(node.op_type):
        return []
    inputs = defs.get_schema(node.op_type, max_inclusive_version=opset).inputs
    names = [each.type_str for each in inputs if each.is_homogeneous]
    # The last input of a definition may stand for any number of inputs.
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
