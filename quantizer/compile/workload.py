"""What convolutions have to multiply and to move, and how long that takes a GPU at least."""

from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Final

import onnx

from quantizer.compile.builder import INT8_NAMES
from quantizer.compile.executed_layers import ExecutedLayer
from quantizer.model.graph import Graph, layer_name

# The data sheet of a T4: 65 TFLOPS in float16, 130 TOPS in int8, 8.1 TFLOPS in float32, 320 GB/s.
MACS_PER_S: Final = {"i8": 65e12, "f8": 65e12, "f16": 32.5e12, "bf16": 32.5e12}
MACS_PER_S_IN_F32: Final = 4.05e12
BYTES_PER_S: Final = 320e9


def macs(graph: Graph) -> dict[str, int]:
    """The multiply-accumulates of each convolution; the graph has known shapes."""
    return {
        layer_name(node): prod(graph.shapes[node.output[0]]) * prod(_weight(graph, node)[1:])
        for node in graph.nodes
        if node.op_type == "Conv"
    }


def share_in_int8(graph: Graph, executed: Mapping[str, str], planned: Collection[str]) -> float:
    """Of the multiply-accumulates of the planned layers, those of kernels that read int8."""
    counts = macs(graph)
    inside = sum(counts[name] for name in planned if executed.get(name) in INT8_NAMES)
    return inside / max(sum(counts[name] for name in planned), 1)


def least_ms(graph: Graph, computed: Mapping[str, ExecutedLayer]) -> dict[str, float]:
    """The milliseconds of each convolution's kernel on a T4 that multiplies or moves at its peak.

    Whichever takes longer counts. Only the ratios are of use for other GPUs.
    """
    counts = macs(graph)
    return {
        name: 1000
        * max(
            counts[name] / MACS_PER_S.get(layer.precision, MACS_PER_S_IN_F32),
            layer.moved / BYTES_PER_S,
        )
        for name, layer in computed.items()
    }


def _weight(graph: Graph, node: onnx.NodeProto) -> Sequence[int]:
    """The shape of a convolution's weight, which may be behind a DequantizeLinear."""
    weight = graph.producer.get(node.input[1])
    return tuple(graph.constants[node.input[1] if weight is None else weight.input[0]].dims)
