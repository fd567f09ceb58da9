"""Rules that keep the engine's boxes those of the graph: broken, it builds and is fast."""

from collections.abc import Iterator
from typing import Final

from quantizer.compile.conformance.fusion import ACTIVATIONS
from quantizer.compile.conformance.network import (
    DEQUANTIZE,
    QUANTIZE,
    WEIGHTED,
    Complaint,
    Network,
    Rule,
    channel_axis,
    rule,
)
from quantizer.model.graph import layer_name


@rule("accuracy")
def pair_has_one_scale(network: Network) -> Iterator[Complaint]:
    """A DQ undoes its Q: any other scale multiplies the values (ONNX's definition of the two)."""
    for node in network.of_kind(DEQUANTIZE):
        maker = network.maker(node.input[0], QUANTIZE)
        if maker is not None and not network.same_scale(maker, node):
            yield node, "its scale is not that of its QuantizeLinear"


@rule("accuracy")
def quantized_to_int8_by_name(network: Network) -> Iterator[Complaint]:
    """Without a zero point ONNX means uint8, and TensorRT's parser takes int8."""
    for node in network.of_kind(QUANTIZE):
        named = any(each.name == "output_dtype" and each.i for each in node.attribute)
        if not named and not any(node.input[2:]):
            yield node, "it has no zero point to say that it is in int8"


@rule("accuracy")
def weight_has_a_scale_for_each_channel(network: Network) -> Iterator[Complaint]:
    """Weights per channel, activations per tensor: the guide's choice for the least loss."""
    for node in network.of_kind(*WEIGHTED):
        weight = network.weight(node)
        scale = None if weight is None else network.scale(weight)
        if weight is None or scale is None or scale.size != 1:
            continue
        shape = network.shape(network.before(weight)) or ()
        axis = channel_axis(node, len(shape))
        if axis < len(shape) and shape[axis] > 1:
            yield weight, f"one scale is for all {shape[axis]} output channels"


@rule("accuracy")
def activation_function_reads_exact_sums(network: Network) -> Iterator[Complaint]:
    """No Q between a convolution and its activation function (the guide).

    It rounds what the kernel knows to 32 bits, and keeps the function out of the kernel.
    """
    for node in network.of_kind(QUANTIZE):
        convolution = network.maker(node.input[0], "Conv", "ConvTranspose")
        if convolution is None:
            continue
        for pair in network.readers(node.output[0]):
            functions = [
                each for each in network.readers(pair.output[0]) if each.op_type in ACTIVATIONS
            ]
            if functions:
                between = f"{layer_name(convolution)} and {layer_name(functions[0])}"
                yield node, f"it is between {between}"
                break


RULES: Final[tuple[Rule, ...]] = (
    pair_has_one_scale,
    quantized_to_int8_by_name,
    weight_has_a_scale_for_each_channel,
    activation_function_reads_exact_sums,
)
