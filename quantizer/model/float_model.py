"""An exporter's ONNX file -> the normalised float model that the rest of the build reads.

read -> convert to opset 13 -> one 1x3xSxS input -> constants folded -> shapes known
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx import TensorProto, checker, helper, shape_inference, version_converter

from quantizer.errors import BadOption, UnsupportedModel
from quantizer.model.files import require_onnx
from quantizer.model.graph import Graph
from quantizer.model.stem import without_focus

MIN_OPSET: Final = 13  # the first whose QuantizeLinear and DequantizeLinear take an axis
MAX_REASON: Final = 200  # characters of a library's error message
STRIDE: Final = 32  # pixels; of the coarsest map that every YOLO has


@dataclass(frozen=True, slots=True, eq=False)
class FloatModel:
    """A float32 detector with one input f32[1,3,size,size] and one output of known shape."""

    graph: Graph
    size: int
    metadata: dict[str, str]

    @property
    def model(self) -> onnx.ModelProto:
        return self.graph.model

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.graph.shapes.get(self.graph.outputs[0], ())


def read_float_model(path: Path, size: int) -> FloatModel:
    """Read and normalise a detector; raises UnsupportedModel, or BadOption for `size`."""
    if size % STRIDE:
        raise BadOption("size", f"{size}: YOLOs take multiples of {STRIDE}")
    model = _read(path)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    resized = _resized(_upgraded(model), size)
    try:
        folded = shape_inference.infer_shapes(_folded(resized), strict_mode=True, data_prop=True)
        model = without_focus(folded)
        model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        checker.check_model(model, full_check=True)
    except Exception as exc:  # onnx and ONNX Runtime raise many types, all about this graph
        exported = _shape_text(model.graph.input[0])
        raise UnsupportedModel(
            f"{path.name} does not work at {size}x{size}. It was exported with the input "
            f"{exported}; a decode with a fixed size runs at that size only: set the option size "
            f"to it, or export at {size}x{size} or with dynamic axes. ({_first_line(exc)})"
        ) from exc
    return FloatModel(Graph.of(model), size, metadata)


def _read(path: Path) -> onnx.ModelProto:
    require_onnx(path)
    try:
        model = onnx.load(path)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as exc:
        raise UnsupportedModel(f"{path.name} is not a readable ONNX file: {exc}") from exc
    if not model.graph.node:
        raise UnsupportedModel(f"{path.name} is not an ONNX model: it has no nodes")
    return model


def _upgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 1)
    if opset >= MIN_OPSET:
        return model
    try:
        return version_converter.convert_version(model, MIN_OPSET)
    except Exception as exc:  # the converter raises RuntimeError and types of its own
        raise UnsupportedModel(f"opset {opset} cannot be converted: {_first_line(exc)}") from exc


def _resized(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """A copy whose only input is f32[1,3,size,size] and whose only output is the first one.

    The three undecoded maps that YOLOv5's exporter may add after the decoded output are dropped.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    found = ", ".join(f"{value.name} {_shape_text(value)}" for value in inputs)
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise UnsupportedModel(f"expected one image input [1,3,H,W], found: {found}")
    tensor_type = inputs[0].type.tensor_type
    if tensor_type.elem_type != TensorProto.FLOAT:
        raise UnsupportedModel(f"expected a float32 input, found: {found}; export in float32")
    channels = tensor_type.shape.dim[1]
    if channels.HasField("dim_value") and channels.dim_value != 3:
        raise UnsupportedModel(f"expected a 3-channel image [1,3,H,W], found: {found}")
    first = graph.output[0]
    if first.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise UnsupportedModel(
            f"expected float32 boxes, the first output {first.name} is of another type: a model "
            "with its own NMS cannot be quantized; export it without (no --end2end, nms=False)"
        )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    image = helper.make_tensor_value_info(inputs[0].name, TensorProto.FLOAT, [1, 3, size, size])
    output = helper.make_tensor_value_info(first.name, TensorProto.FLOAT, None)
    for field, values in (("input", [image]), ("output", [output]), ("value_info", [])):
        copy.graph.ClearField(field)
        getattr(copy.graph, field).extend(values)
    return copy


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with constants folded, batch norms fused and dead nodes removed.

    ONNX Runtime's basic level does it, with standard operators only. The graph runs once, because
    shape inference accepts a Reshape that cannot be executed.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with TemporaryDirectory() as folder:
        target = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(target)
        session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        (image,) = session.get_inputs()
        session.run(None, {image.name: np.zeros(image.shape, np.float32)})
        folded = onnx.load(target)
    standard = [item for item in folded.opset_import if item.domain in {"", "ai.onnx"}]
    folded.ClearField("opset_import")
    folded.opset_import.extend(standard)
    return folded


def _shape_text(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return "[" + ",".join(str(dim.dim_value or dim.dim_param or "?") for dim in dims) + "]"


def _first_line(exc: Exception) -> str:
    text = str(exc).strip() or type(exc).__name__
    return shorten(text.splitlines()[0], MAX_REASON, placeholder="...")
