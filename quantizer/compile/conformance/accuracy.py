"""Rules for accuracy: if one is broken, the engine is fast, but its boxes differ."""

from typing import Final

from quantizer.compile.conformance.fusion import ACTIVATIONS
from quantizer.compile.conformance.network import DEQUANTIZE, QUANTIZE, Network, Rule, Violations
from quantizer.model.graph import layer_name


def pair_has_one_scale(network: Network) -> Violations:
    """A DQ has the scale of its Q: another one multiplies the values (ONNX's definition)."""
    for node in network.of_type(DEQUANTIZE):
        producer = network.producer(node.input[0], QUANTIZE)
        if producer is not None and not network.same_scale(producer, node):
            yield node, "its scale is not that of its QuantizeLinear"


def quantized_to_int8_by_name(network: Network) -> Violations:
    """Without a zero point, ONNX means uint8, but TensorRT's parser assumes int8."""
    for node in network.of_type(QUANTIZE):
        named = any(each.name == "output_dtype" and each.i for each in node.attribute)
        if not named and not any(node.input[2:]):
            yield node, "it has no zero point of type int8"


def weight_has_a_scale_for_each_channel(network: Network) -> Violations:
    """Per channel for weights, per tensor for activations: the guide's recommendation."""
    for weight, scales, shape, axis in network.weights_in_int8():
        if scales == 1 and axis < len(shape) and shape[axis] > 1:
            yield weight, f"its {shape[axis]} output channels have one scale"


def activation_function_reads_exact_sums(network: Network) -> Violations:
    """No Q stands between a convolution and its activation function (the guide).

    Such a Q rounds the kernel's 32-bit sums, and prevents the fusion of the function.
    """
    for node in network.of_type(QUANTIZE):
        convolution = network.producer(node.input[0], "Conv", "ConvTranspose")
        functions = [
            each
            for pair in network.readers(node.output[0])
            for each in network.readers(pair.output[0])
            if each.op_type in ACTIVATIONS
        ]
        if convolution is not None and functions:
            between = f"{layer_name(convolution)} and {layer_name(functions[0])}"
            yield node, f"it is between {between}"


RULES: Final[tuple[Rule, ...]] = (
    pair_has_one_scale,
    quantized_to_int8_by_name,
    weight_has_a_scale_for_each_channel,
    activation_function_reads_exact_sums,
)
