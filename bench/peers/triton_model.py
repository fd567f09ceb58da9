"""The detector as a model of Triton's Python backend: the bytes of an image -> boxes, scores.

Tensors pass as DLPack: the backend was compiled for NumPy 1, and misreads the arrays of NumPy 2.
"""

import os
import sys
from typing import Any

import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    """One instance, in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)  # the backend ignores it
        from bench.peers.detector import Detector  # not at the top, before it can be found

        self.detector = Detector(int(args["model_instance_name"].rpartition("_")[2]))

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        image = triton.get_input_tensor_by_name(request, "image")
        boxes = self.detector.boxes(np.from_dlpack(image).tobytes())
        outputs = (("boxes", boxes.xyxy), ("scores", boxes.scores))
        tensors = [
            triton.Tensor.from_dlpack(name, np.ascontiguousarray(array)) for name, array in outputs
        ]
        return triton.InferenceResponse(tensors)
