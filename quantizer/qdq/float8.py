"""A Q/DQ graph in int8 -> the same placement in FP8: E4M3, which NVIDIA's GPUs have from 8.9 on.

The range of each tensor stays: the largest number of E4M3 takes the place of 127. A step of int8
has one size, one of E4M3 is finer near 0.
"""

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from quantizer.errors import BuildFailed
from quantizer.qdq.float16 import OPSET
from service.vision.detections import Floats

LARGEST: Final = 448.0  # of E4M3
LARGEST_INT8: Final = 127.0
LEAST_SCALE: Final = float(np.finfo(np.float16).tiny)  # float16 layers hold the scales as well


def to_float8(int8: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the weights of `original`, the float model, in E4M3; raises BuildFailed.

    Weights have a scale for each output channel. Biases are those of `original`: their correction
    is for the rounding to int8.
    """
    try:
        copy = version_converter.convert_version(int8, OPSET)
    except Exception as exc:  # the converter raises RuntimeError and classes of its own
        raise BuildFailed(f"the graph cannot be written in opset {OPSET}: {exc}") from exc
    floats = {each.name: each for each in original.graph.initializer}
    weights = {
        each.name.removesuffix("/quantized")
        for each in copy.graph.initializer
        if each.data_type == TensorProto.INT8 and each.name.endswith("/quantized")
    }
    for tensor in copy.graph.initializer:
        name, _, part = tensor.name.rpartition("/")
        if part == "zero_point" and tensor.data_type == TensorProto.INT8:
            tensor.CopyFrom(_e4m3(tensor.name, np.zeros(tuple(tensor.dims), np.float32)))
        elif name in weights and part in ("quantized", "scale"):
            weight = numpy_helper.to_array(floats[name]).astype(np.float32)
            scale = _scale(np.abs(weight).reshape(len(weight), -1).max(axis=1))
            steps = weight / scale.reshape(-1, *(1,) * (weight.ndim - 1))
            made = numpy_helper.from_array(scale, tensor.name)
            tensor.CopyFrom(made if part == "scale" else _e4m3(tensor.name, steps))
        elif part == "scale":
            largest = numpy_helper.to_array(tensor).astype(np.float32) * np.float32(LARGEST_INT8)
            tensor.CopyFrom(numpy_helper.from_array(_scale(largest), tensor.name))
    _restore_biases(copy, original)
    copy.graph.ClearField("value_info")  # in which the steps have the type int8
    return shape_inference.infer_shapes(copy, strict_mode=True)


def _scale(largest: Floats) -> Floats:
    """The scale with which E4M3 reaches a number; float16 can hold it."""
    scale: Floats = np.maximum(largest / np.float32(LARGEST), np.float32(LEAST_SCALE))
    return scale.astype(np.float16).astype(np.float32)


def _e4m3(name: str, values: Floats) -> onnx.TensorProto:
    clipped = np.clip(values, -LARGEST, LARGEST)
    return helper.make_tensor(
        name, TensorProto.FLOAT8E4M3FN, list(values.shape), clipped.ravel().tolist()
    )


def _restore_biases(copy: onnx.ModelProto, original: onnx.ModelProto) -> None:
    floats = {each.name: each for each in original.graph.initializer}
    biases = {
        node.name: floats[node.input[2]]
        for node in original.graph.node
        if node.op_type == "Conv" and len(node.input) > 2 and node.input[2] in floats
    }
    here = {each.name: each for each in copy.graph.initializer}
    for node in copy.graph.node:
        if node.name in biases and len(node.input) > 2 and node.input[2] in here:
            tensor = here[node.input[2]]
            name = tensor.name
            tensor.CopyFrom(biases[node.name])
            tensor.name = name
