"""An exporter's ONNX file -> the normalised float model that the rest of the build reads.

read -> float32, opset 13 -> one input f32[1,3,H,W] -> constants folded -> one output, shapes known
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx import TensorProto, checker, helper, shape_inference, version_converter

from quantizer.errors import BadOption, UnsupportedModel, WorksAtOneSize
from quantizer.model.files import require_onnx
from quantizer.model.float32 import in_float32
from quantizer.model.graph import Graph
from quantizer.model.outputs import readable_outputs, with_one_output
from quantizer.model.stem import without_focus
from service.vision.input_size import DEFAULT_SIZE, InputSize

MIN_OPSET: Final = 13  # the first whose QuantizeLinear and DequantizeLinear take an axis
MAX_REASON: Final = 200  # characters of a library's error message
STRIDE: Final = 32  # pixels; of the coarsest map that every YOLO has


@dataclass(frozen=True, slots=True, eq=False)
class FloatModel:
    """A float32 detector with one input f32[1,3,height,width] and one output of known shape.

    assumptions: what neither the file nor an option says, one sentence each. outputs: the names and
    the shapes of the file's outputs.
    """

    graph: Graph
    size: InputSize
    metadata: dict[str, str]
    assumptions: tuple[str, ...] = field(default=(), kw_only=True)
    outputs: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def model(self) -> onnx.ModelProto:
        return self.graph.model

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.graph.shapes.get(self.graph.outputs[0], ())


def read_float_model(path: Path, size: InputSize | None = None) -> FloatModel:
    """Read and normalise a detector; raises UnsupportedModel, or BadOption for `size`, which is
    WorksAtOneSize where the model works at its own.

    Without `size` it is 640, or the size of the exported input where the model works at no other.
    """
    if size is not None and (size.width % STRIDE or size.height % STRIDE):
        nearest = InputSize(_nearest(size.width), _nearest(size.height))
        raise BadOption("size", f"{size}: YOLOs take multiples of {STRIDE}; use --size {nearest}")
    exported = _read(path)
    metadata = {prop.key: prop.value for prop in exported.metadata_props}
    model = _upgraded(in_float32(exported))
    image = _image_input(model)
    resized = partial(_resized, model, image, readable_outputs(model.graph))
    wanted, own = size or DEFAULT_SIZE, _exported_size(image)
    outputs = tuple(f"{each.name} {_shape_text(each)}" for each in exported.graph.output)
    read = partial(FloatModel, metadata=metadata, outputs=outputs)
    made = _normalised(resized(wanted))
    if isinstance(made, onnx.ModelProto):
        return read(Graph.of(made), wanted)
    failed = f"{path.name} does not work at {wanted.text}"
    at_own = _normalised(resized(own)) if own and own != wanted else made
    if own is None or isinstance(at_own, Exception):
        raise UnsupportedModel(
            f"{failed}, and was exported with the input {_shape_text(image)}: export it with batch "
            f"1 at {wanted.text} or with dynamic axes. ({_first_line(made)})"
        ) from made
    only = f"only at the size of its export, {own.text}"
    if size is not None:
        raise WorksAtOneSize(f"{size}: {failed}, {only}; use --size {own}", own) from made
    assumption = f"{failed}, {only}, which is used"
    return read(Graph.of(at_own), own, assumptions=(assumption,))


def _normalised(model: onnx.ModelProto) -> onnx.ModelProto | Exception:
    """The model with its constants folded and one output, or why it does not work at its size."""
    try:
        folded = _folded(model)
        folded = shape_inference.infer_shapes(folded, strict_mode=True, data_prop=True)
        made = without_focus(with_one_output(folded))
        made = shape_inference.infer_shapes(made, strict_mode=True, data_prop=True)
        checker.check_model(made, full_check=True)
    except Exception as exc:  # onnx and ONNX Runtime raise many types, all about this graph
        return exc
    return made


def _read(path: Path) -> onnx.ModelProto:
    require_onnx(path)
    try:
        model = onnx.load(path)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as exc:
        raise UnsupportedModel(
            f"{path.name} is not a readable ONNX file: {exc}. It and the files of its "
            "external data must be complete and in one folder: copy or export it again"
        ) from exc
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
        raise UnsupportedModel(
            f"opset {opset} cannot be converted: {_first_line(exc)}; export it with opset 17"
        ) from exc


def _image_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The only input, an image f32[1,3,H,W] or f32[1,H,W,3]; raises UnsupportedModel."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    found = ", ".join(f"{value.name} {_shape_text(value)}" for value in inputs)
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        raise UnsupportedModel(
            f"expected one image input [1,3,H,W], found: {found}; only detectors of one image are "
            "served"
        )
    image: onnx.ValueInfoProto = inputs[0]
    if image.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise UnsupportedModel(
            f"expected a float32 input, found: {found}; export it without preprocessing in the "
            "graph (super-gradients: preprocessing=False, postprocessing=False)"
        )
    channels, last = (_static(image, axis) for axis in (1, 3))
    if 3 not in (channels, last) and channels is not None:
        raise UnsupportedModel(
            f"expected a 3-channel image [1,3,H,W], found: {found}; only colour images are served"
        )
    return image


def _static(image: onnx.ValueInfoProto, axis: int) -> int | None:
    """The length of an axis; None where it is dynamic."""
    dim = image.type.tensor_type.shape.dim[axis]
    return int(dim.dim_value) if dim.HasField("dim_value") else None


def _has_channels_last(image: onnx.ValueInfoProto) -> bool:
    return _static(image, 3) == 3 and _static(image, 1) != 3


def _exported_size(image: onnx.ValueInfoProto) -> InputSize | None:
    """Of the image that the model was exported for; None where it varies, or is no YOLO's."""
    axes = (2, 1) if _has_channels_last(image) else (3, 2)
    width, height = (_static(image, axis) for axis in axes)
    if not width or not height or width % STRIDE or height % STRIDE:
        return None
    return InputSize(width, height)


def _nearest(side: int) -> int:
    return max(STRIDE, round(side / STRIDE) * STRIDE)


def _resized(
    model: onnx.ModelProto, image: onnx.ValueInfoProto, outputs: list[str], size: InputSize
) -> onnx.ModelProto:
    """A copy whose only input is f32[1,3,height,width]; other outputs are dropped."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    float_info = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    resized = float_info(image.name, shape=[1, 3, size.height, size.width])
    kept = [float_info(name, shape=None) for name in outputs]
    for name, values in (("input", [resized]), ("output", kept), ("value_info", [])):
        copy.graph.ClearField(name)
        getattr(copy.graph, name).extend(values)
    if _has_channels_last(image):
        _read_channels_last(copy.graph, image.name)
    return copy


def _read_channels_last(graph: onnx.GraphProto, image: str) -> None:
    """Let the nodes that read the image read it with its channels last."""
    last = f"{image}/channels_last"
    for node in graph.node:
        node.input[:] = [last if name == image else name for name in node.input]
    graph.node.insert(0, helper.make_node("Transpose", [image], [last], last, perm=[0, 2, 3, 1]))


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
