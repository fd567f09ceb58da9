"""Rules for speed: if one is broken, the engine is correct, but slower.

Sources: the recommendations of TensorRT's developer guide on the placement of Q and DQ, by which
TensorRT moves a DQ forward and a Q backward until a layer is between them; NVIDIA's Model Optimizer
(modelopt/onnx/quantization/graph_utils.py).
"""

from collections.abc import Iterator, Sequence
from typing import Final

import onnx

from quantizer.compile.conformance.network import (
    DEQUANTIZE,
    QUANTIZE,
    WEIGHTED,
    Network,
    Rule,
    Violations,
)
from quantizer.model.graph import PASS_THROUGH_OPS, attribute, layer_name, silu_input

# The activation functions that a convolution's kernel applies to its own sums.
ACTIVATIONS: Final = frozenset(
    {
        "Clip",
        "Elu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "PRelu",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Swish",
        "Tanh",
    }
)
FEW: Final = 16  # channels: with fewer, only some kernels fit
PACKED: Final = 8  # channels that int8 kernels read or write together


def both_inputs_are_quantized(network: Network) -> Violations:
    """Of a weighted layer, both input and weight are quantized, or neither (the guide)."""
    for node in network.of_type(*WEIGHTED):
        quantized = network.weight(node) is not None
        if not quantized and not network.graph.is_constant(node.input[1]):
            continue
        if quantized != (network.dequantizer(node.input[0]) is not None):
            which = "weight" if quantized else "input"
            yield node, f"only its {which} is quantized, so it runs in float"


def weight_has_scales_on_its_output_channels(network: Network) -> Violations:
    """A kernel sums over the other axes and scales only the sums (axes: Model Optimizer).

    Where a DQ names no axis, ONNX means 1, but TensorRT's parser assumes 0.
    """
    for weight, scales, shape, channels in network.weights_in_int8():
        rank = len(shape)
        axis = attribute(weight, "axis", rank)
        if scales == 1:
            continue
        if axis == rank:
            yield weight, f"it names no axis, and the output channels are on {channels}"
        elif axis not in {channels, channels - rank}:
            yield weight, f"its axis is {axis}, and the output channels are on {channels}"


def convolution_has_an_int8_kernel(network: Network) -> Violations:
    """With few channels, only some shapes have one; Model Optimizer keeps the others float."""
    for node in network.of_type("Conv"):
        weight = network.weight(node)
        if weight is None or not network.runs_in_int8(node):
            continue
        shape = network.shape(network.before(weight)) or ()
        groups = attribute(node, "group", 1)
        if not has_int8_kernel(shape, groups, _reads_the_image(network, node)):
            grouped = f" in {groups} groups" if groups > 1 else ""
            yield node, f"int8 kernels do not take weights of {list(shape)}{grouped}"


def other_term_is_quantized(network: Network) -> Violations:
    """An Add is fused into an int8 convolution if its other input is quantized (the guide)."""
    for node in _sums(network):
        floats = [name for name in node.input if network.dequantizer(name) is None]
        fused = [name for name in floats if _fuses_its_reader(network, name)]
        others = [name for name in floats if name not in fused[:1]]
        if fused and others:
            yield node, f"{others[0]} is added in float to the output of an int8 convolution"


def term_of_a_convolution_is_not_quantized(network: Network) -> Violations:
    """A Q for an Add alone prevents its fusion; Model Optimizer removes such a Q."""
    for node in _sums(network):
        if any(_fuses_its_reader(network, name) for name in node.input):
            continue
        for name in node.input:
            pair = network.dequantizer(name)
            quantizer = None if pair is None else network.producer(pair.input[0], QUANTIZE)
            if quantizer is None or _has_other_readers(network, name):
                continue
            convolution = _int8_convolution(network, quantizer.input[0])
            if convolution is not None:
                added, into = layer_name(node), layer_name(convolution)
                yield quantizer, f"it prevents the fusion of {added} into {into}"
                break


def concat_has_one_scale(network: Network) -> Violations:
    """Q and DQ cancel across a Concat if its inputs and its output have one scale.

    Source: Model Optimizer (get_concat_eliminated_tensors).
    """
    for node in network.of_type("Concat"):
        before = [network.dequantizer(name) for name in node.input]
        after = network.quantizers(node.output[0])
        pairs = [each for each in before if each is not None]
        if not pairs and not after:
            continue
        floats = [name for name, pair in zip(node.input, before, strict=True) if pair is None]
        if floats:
            yield node, f"its input {floats[0]} is float where others or the output are quantized"
        elif not after:
            yield node, "its inputs are quantized and its output is not"
        elif not network.same_scale(*pairs, *after):
            yield node, "its inputs and its output differ in scale and are requantized"


def pass_through_op_keeps_the_scale(network: Network) -> Violations:
    """A pass-through operator runs in int8 between a DQ and a Q of one scale (the guide).

    Some of TensorRT's rewrites move a Q or DQ past it only after they compare the scales.
    """
    for node in filter(_passes_through, network.graph.nodes):
        before = network.dequantizer(_chain_input(network, node))
        after = [each for name in node.output for each in network.quantizers(name)]
        if before is not None and not network.same_scale(before, *after):
            yield node, "its output has another scale than its input, so its values are requantized"


def quantized_is_not_read_in_float(network: Network) -> Violations:
    """A Q is fused into the layer in front of it, which writes twice if floats are read too."""
    for node in network.graph.nodes:
        for name in node.output:
            if node.op_type == DEQUANTIZE or not network.quantizers(name):
                continue
            others = [each for each in network.readers(name) if each.op_type != QUANTIZE]
            if others or name in network.graph.outputs:
                reader = layer_name(others[0]) if others else "the caller"
                yield node, f"{name} is quantized, and {reader} reads it in float"


def has_int8_kernel(weight: Sequence[int], groups: int, first: bool) -> bool:
    """Model Optimizer's table; `weight` is a Conv's weight's shape, `first`: it reads the image."""
    outputs, inputs, *kernel = weight
    if min(outputs, inputs) >= FEW:
        return True
    if groups > 1:
        return outputs % PACKED == 0 and min(kernel) >= 3
    packed = outputs % PACKED == 0 or inputs % PACKED == 0
    return packed and (first or max(outputs, inputs) >= FEW) and len(set(kernel)) == 1


def _reads_the_image(network: Network, node: onnx.NodeProto) -> bool:
    """Whether only Q, DQ and Cast stand between the image and this node."""
    tensor: str = node.input[0]
    while (producer := network.producer(tensor, QUANTIZE, DEQUANTIZE, "Cast")) is not None:
        tensor = producer.input[0]
    return tensor == network.graph.input


def _sums(network: Network) -> Iterator[onnx.NodeProto]:
    """The Adds of two computed tensors."""
    for node in network.of_type("Add"):
        if len(network.graph.activations_of(node)) == 2:
            yield node


def _fuses_its_reader(network: Network, tensor: str) -> bool:
    """Whether an int8 convolution computes this for a single node, which it can fuse."""
    return len(network.readers(tensor)) == 1 and _int8_convolution(network, tensor) is not None


def _has_other_readers(network: Network, dequantized: str) -> bool:
    """Whether more than one node reads the values of a Q/DQ pair."""
    pair = network.graph.producer[dequantized]
    return len(network.readers(dequantized)) + len(network.readers(pair.input[0])) > 2


def _int8_convolution(network: Network, tensor: str) -> onnx.NodeProto | None:
    """The int8 convolution that computes a tensor, directly or through its activation function."""
    node = network.producer(tensor, "Mul", *ACTIVATIONS)
    if node is not None:
        value = silu_input(network.graph, node)
        tensor = value or (node.input[0] if node.op_type in ACTIVATIONS else "")
    convolution = network.producer(tensor, "Conv", "ConvTranspose")
    if convolution is None or not network.runs_in_int8(convolution):
        return None
    return convolution


def _passes_through(node: onnx.NodeProto) -> bool:
    """Whether the output has the values of the first input, only in other places."""
    mode = next((attr.s for attr in node.attribute if attr.name == "mode"), b"nearest")
    nearest = node.op_type != "Resize" or mode == b"nearest"
    return node.op_type in PASS_THROUGH_OPS and node.op_type != "Concat" and nearest


def _chain_input(network: Network, last: onnx.NodeProto) -> str:
    """The input of the chain of pass-through operators that ends in this node."""
    tensor: str = last.input[0]
    node = network.producer(tensor, *PASS_THROUGH_OPS)
    return tensor if node is None or not _passes_through(node) else _chain_input(network, node)


KERNEL_RULES: Final[tuple[Rule, ...]] = (
    both_inputs_are_quantized,
    weight_has_scales_on_its_output_channels,
    convolution_has_an_int8_kernel,
)
REFORMAT_RULES: Final[tuple[Rule, ...]] = (
    other_term_is_quantized,
    term_of_a_convolution_is_not_quantized,
    concat_has_one_scale,
    pass_through_op_keeps_the_scale,
    quantized_is_not_read_in_float,
)
