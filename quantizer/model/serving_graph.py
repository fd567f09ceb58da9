"""The graph that is served: bytes of an image in, the maps of the last convolutions out.

    u8[1,height,width,3], RGB  ->  convolutions  ->  f32[1,H,W,C] of each map, or the whole output

1. The bytes are the quantized input, since the first Q/DQ pair gives each byte a step of its own.
   OpenVINO sees that, and makes no pass over the image; for other runtimes QuantizeLinear goes.
2. Models that were trained on BGR get the channels of their first weights swapped, not the image.
3. The graph ends at its maps where the server can decode them; its decode tail goes.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from quantizer.model.graph import Graph, constant_weight, drop_unread
from quantizer.model.map_layout import Maps
from service.vision.preprocess import Preprocess

BYTES: Final = "image/bytes"
RGB_AS_BGR: Final = [2, 1, 0]


def reading_bytes(
    model: onnx.ModelProto, preprocess: Preprocess, bytes_are_steps: bool = False
) -> onnx.ModelProto:
    """A copy of a float or Q/DQ graph that reads u8[1,height,width,3] in place of
    f32[1,3,height,width].

    bytes_are_steps: without the QuantizeLinear of the image.
    """
    edited = deepcopy(model)
    _read_bytes(edited, preprocess, bytes_are_steps)
    drop_unread(edited)
    edited.graph.ClearField("value_info")
    return shape_inference.infer_shapes(edited, strict_mode=True)


def ended_at(model: onnx.ModelProto, maps: Maps | None) -> onnx.ModelProto:
    """A copy with the maps as outputs, channels last, as the kernels of integer convolutions write.

    Without maps it is a plain copy.
    """
    model = deepcopy(model)
    if maps is None:
        return model
    model.graph.ClearField("output")
    for tensor in maps.tensors:
        return_channels_last(model, tensor, f"{tensor}/map")
    drop_unread(model)
    return shape_inference.infer_shapes(model, strict_mode=True)


def return_channels_last(
    model: onnx.ModelProto, tensor: str, name: str, kind: int = TensorProto.FLOAT
) -> None:
    """Add an output of this name: the tensor [1,C,H,W] as [1,H,W,C]."""
    model.graph.node.append(helper.make_node("Transpose", [tensor], [name], perm=[0, 2, 3, 1]))
    model.graph.output.append(helper.make_tensor_value_info(name, kind, None))


def _read_bytes(model: onnx.ModelProto, preprocess: Preprocess, bytes_are_steps: bool) -> None:
    graph = Graph.of(model)
    (image,) = (value for value in model.graph.input if value.name == graph.input)
    height, width = graph.shapes[graph.input][2:]
    image.CopyFrom(helper.make_tensor_value_info(BYTES, TensorProto.UINT8, [1, height, width, 3]))
    readers, divisor = graph.consumers.get(graph.input, ()), preprocess.divisor
    steps = bytes_are_steps and all(_is_identity(graph, each, divisor) for each in readers)
    if not steps and divisor == 1 and all(each.op_type == "QuantizeLinear" for each in readers):
        divisor = _scale_to_one(model, graph, readers)
    swapped = preprocess.bgr and _swap_first_weights(model, graph)
    nodes: list[onnx.NodeProto] = []

    def then(kind: str, source: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, source, [name], name, **attributes))
        return name

    def constant(name: str, values: NDArray[Any]) -> str:
        model.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    # TensorRT moves floats only: the Cast comes first.
    pixels = BYTES if steps else then("Cast", [BYTES], "image/float", to=TensorProto.FLOAT)
    pixels = then("Transpose", [pixels], "image/planes", perm=[0, 3, 1, 2])
    if preprocess.bgr and not swapped:
        order = constant("image/order", np.array(RGB_AS_BGR))
        pixels = then("Gather", [pixels, order], "image/bgr", axis=1)
    if steps:
        for reader in readers:
            _replace_input(model, reader.output[0], pixels)
    else:
        factor = constant("image/factor", np.array(1 / divisor, np.float32))
        _replace_input(model, graph.input, then("Mul", [pixels, factor], "image/scaled"))
    kept = list(model.graph.node)
    model.graph.ClearField("node")
    model.graph.node.extend([*nodes, *kept])


def _is_identity(graph: Graph, quantize: onnx.NodeProto, divisor: float) -> bool:
    """Whether this makes each byte, divided by `divisor`, the step of the same number."""
    if quantize.op_type != "QuantizeLinear":
        return False
    scale, zero = (graph.constant(name) for name in quantize.input[1:3])
    return zero.dtype == np.uint8 and int(zero) == 0 and np.isclose(scale, 1 / divisor, rtol=1e-6)


def _scale_to_one(
    model: onnx.ModelProto, graph: Graph, quantizing: Sequence[onnx.NodeProto]
) -> float:
    """Divide the image by 255 and multiply the weights that meet it; returns the new divisor.

    OpenVINO 2026.4 drops the quantization of bytes to the steps 0, 1, ..., and with it the integer
    kernel, where the scale is exactly 1 or a power of 2.
    """
    first = {
        graph.producer[node.input[1]].input[1]
        for quantize in quantizing
        for node in _past_quantization(graph, quantize)
        if node.op_type == "Conv" and node.input[1] in graph.producer
    }
    factors = dict.fromkeys((node.input[1] for node in quantizing), 1 / 255)
    factors |= dict.fromkeys(first, 255.0)
    for tensor in model.graph.initializer:
        if tensor.name in factors:
            values = numpy_helper.to_array(tensor) * np.float32(factors[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(values), tensor.name))
    return 255.0


def _swap_first_weights(model: onnx.ModelProto, graph: Graph) -> bool:
    """Swap the input channels of every convolution that reads the image; False where another
    operator reads it, or a convolution has computed weights."""
    readers = [_past_quantization(graph, node) for node in graph.consumers.get(graph.input, ())]
    convolutions = [node for reached in readers for node in reached]
    weights = [_constant_behind(graph, node) for node in convolutions if node.op_type == "Conv"]
    if len(weights) != len(convolutions) or None in weights:
        return False
    for name in set(weights):
        assert name is not None
        tensor = next(each for each in model.graph.initializer if each.name == name)
        values = numpy_helper.to_array(tensor)
        if values.ndim != 4 or values.shape[1] != 3:
            return False
        tensor.CopyFrom(numpy_helper.from_array(values[:, RGB_AS_BGR].copy(), name))
    return True


def _past_quantization(graph: Graph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The node itself, or the nodes that read what its Q/DQ pair or Cast makes of the image."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Cast"):
        return [node]
    return [
        reached
        for reader in graph.consumers.get(node.output[0], ())
        for reached in _past_quantization(graph, reader)
    ]


def _constant_behind(graph: Graph, convolution: onnx.NodeProto) -> str | None:
    """The constant weight of a convolution, if no other node reads it."""
    name = constant_weight(graph, convolution)
    return name if name is not None and len(graph.consumers[name]) == 1 else None


def _replace_input(model: onnx.ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
