"""An ONNX graph, run node by node in PyTorch: any device, without another runtime."""

from collections.abc import Callable
from typing import Any, Final

import onnx
import torch
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor
from torch.nn import functional


class TorchGraph:
    """A graph of YOLO's operators with one input; constants are copied to the device once.

    Raises ValueError for an operator that it does not know.
    """

    def __init__(self, model: ModelProto, outputs: list[str], device: torch.device) -> None:
        graph = model.graph
        unknown = sorted({node.op_type for node in graph.node} - OPERATORS.keys())
        if unknown:
            raise ValueError(f"PyTorch runs no {', '.join(unknown)} here")
        self._nodes = [(node, _attributes(node)) for node in graph.node]
        self._input = graph.input[0].name
        self._outputs = outputs
        self._constants = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()).to(device)
            for tensor in graph.initializer
        }

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Tensor]:
        values = {**self._constants, self._input: images}
        for node, attributes in self._nodes:
            inputs = [values[name] if name else None for name in node.input]
            values[node.output[0]] = OPERATORS[node.op_type](attributes, *inputs)
        return [values[name] for name in self._outputs]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _convolution(a: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    top, left, _, _ = a["pads"]
    return functional.conv2d(x, weight, bias, a["strides"], (top, left), 1, a["group"])


def _max_pool(a: dict[str, Any], x: Tensor) -> Tensor:
    top, left, _, _ = a["pads"]
    return functional.max_pool2d(x, a["kernel_shape"], a["strides"], (top, left))


def _resize(_: dict[str, Any], x: Tensor, *sizes: Tensor | None) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


OPERATORS: Final[dict[str, Callable[..., Tensor]]] = {
    "Add": lambda _, x, y: x + y,
    "Concat": lambda a, *parts: torch.cat(parts, dim=a["axis"]),
    "Conv": _convolution,
    "MaxPool": _max_pool,
    "Mul": lambda _, x, y: x * y,
    "Reshape": lambda _, x, shape: x.reshape(len(x), *shape.tolist()[1:]),
    "Resize": _resize,
    "Sigmoid": lambda _, x: x.sigmoid(),
    "Transpose": lambda a, x: x.permute(a["perm"]),
}
