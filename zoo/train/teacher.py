"""YOLOX-nano as the teacher: its predictions at every anchor, and six of its feature maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import openvino as ov
import torch
from onnx import TensorProto, helper
from torch import Tensor

from quantizer.model.float_model import read_float_model
from service.vision.input_size import InputSize

# Tensors of yolox_nano.onnx (YOLOX release 0.1.1rc0) at strides 8, 16, 32 -> their channels: first
# the outputs of the backbone, then those of the neck.
MAPS: Final = {"781": 64, "841": 128, "890": 128, "956": 64, "990": 128, "1024": 256}


class TeacherOutput(NamedTuple):
    """The predictions for a batch; anchors in the order of the student's."""

    boxes: Tensor  # [N, A, 4] undecoded, in strides, as the student's
    objectness: Tensor  # [N, A] probabilities
    classes: Tensor  # [N, A, 80] probabilities
    maps: tuple[Tensor, ...]  # [N, C, H, W] in the order of MAPS


@dataclass(frozen=True, slots=True)
class Teacher:
    _compiled: ov.CompiledModel

    @classmethod
    def load(cls, path: Path, size: int) -> "Teacher":
        """The model at one input size, with its feature maps as additional outputs."""
        read = read_float_model(path, InputSize.of(size))
        graph = read.model.graph
        for name in MAPS:
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        model = ov.Core().read_model(read.model.SerializeToString())
        throughput = {"PERFORMANCE_HINT": "THROUGHPUT"}  # runs in bf16 on CPUs that have it
        return cls(ov.Core().compile_model(model, "CPU", throughput))

    def predict(self, images: list[np.ndarray]) -> TeacherOutput:
        """Predict on images u8[S,S,3] RGB."""
        outputs: list[list[np.ndarray]] = [[] for _ in images]
        queue = ov.AsyncInferQueue(self._compiled)
        queue.set_callback(lambda request, number: outputs[number].extend(_copy(request)))
        for number, image in enumerate(images):
            tensor = np.ascontiguousarray(image[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32)
            queue.start_async({0: tensor}, number)
        queue.wait_all()
        output, *maps = (
            torch.from_numpy(np.concatenate(part)) for part in zip(*outputs, strict=True)
        )
        return TeacherOutput(output[..., :4], output[..., 4], output[..., 5:], tuple(maps))


def _copy(request: ov.InferRequest) -> list[np.ndarray]:
    return [tensor.data.copy() for tensor in request.output_tensors]
