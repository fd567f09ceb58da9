"""Run a graph in ONNX Runtime, the build's own executor whatever engine is built."""

import onnx
import onnxruntime as ort


def open_session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """A session on the CPU that keeps its advice to itself."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
