"""YOLOX-nano as the teacher: its predictions at every anchor, and six of its feature maps."""

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper
from torch import Tensor

from quantizer.model.float_model import read_float_model
from service.vision.input_size import InputSize
from zoo.train.torch_graph import TorchGraph

if TYPE_CHECKING:
    from openvino import InferRequest

# Tensors of yolox_nano.onnx (YOLOX release 0.1.1rc0) at strides 8, 16, 32 -> their channels: first
# the outputs of the backbone, then those of the neck.
MAPS: Final = {"781": 64, "841": 128, "890": 128, "956": 64, "990": 128, "1024": 256}


class TeacherOutput(NamedTuple):
    """The predictions for a batch; anchors in the order of the student's."""

    boxes: Tensor  # [N, A, 4] undecoded, in strides, as the student's
    objectness: Tensor  # [N, A] probabilities
    classes: Tensor  # [N, A, 80] probabilities
    maps: tuple[Tensor, ...]  # [N, C, H, W] in the order of MAPS


class Teacher(Protocol):
    def predict(self, images: Tensor) -> TeacherOutput:
        """Predict on images u8[N,S,S,3] RGB; the answer is on their device."""


def load_teacher(path: Path, size: int, device: torch.device) -> Teacher:
    """The model at one input size: in OpenVINO on a CPU, in PyTorch on any other device."""
    model = read_float_model(path, InputSize.of(size)).model
    return OpenVinoTeacher(model) if device.type == "cpu" else TorchTeacher(model, device)


class TorchTeacher:
    def __init__(self, model: ModelProto, device: torch.device) -> None:
        self._graph = TorchGraph(model, [model.graph.output[0].name, *MAPS], device)

    def predict(self, images: Tensor) -> TeacherOutput:
        return _as_output(self._graph(images.flip(3).permute(0, 3, 1, 2).float()))


class OpenVinoTeacher:
    def __init__(self, model: ModelProto) -> None:
        import openvino as ov  # a machine with a GPU needs none

        for name in MAPS:
            value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            model.graph.output.append(value)
        throughput = {"PERFORMANCE_HINT": "THROUGHPUT"}  # runs in bf16 on CPUs that have it
        core = ov.Core()
        read = core.read_model(model.SerializeToString())
        self._queue = ov.AsyncInferQueue(core.compile_model(read, "CPU", throughput))

    def predict(self, images: Tensor) -> TeacherOutput:
        outputs: list[list[np.ndarray]] = [[] for _ in images]
        self._queue.set_callback(lambda request, number: outputs[number].extend(_copy(request)))
        for number, image in enumerate(images.numpy()):
            tensor = np.ascontiguousarray(image[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32)
            self._queue.start_async({0: tensor}, number)
        self._queue.wait_all()
        return _as_output(
            [torch.from_numpy(np.concatenate(part)) for part in zip(*outputs, strict=True)]
        )


def _as_output(tensors: list[Tensor]) -> TeacherOutput:
    output, *maps = tensors
    return TeacherOutput(output[..., :4], output[..., 4], output[..., 5:], tuple(maps))


def _copy(request: "InferRequest") -> list[np.ndarray]:
    return [tensor.data.copy() for tensor in request.output_tensors]
