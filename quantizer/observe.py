"""Run the float graph over images and keep histograms, not activations."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from quantizer.errors import UnsupportedModel
from quantizer.graph import Graph
from quantizer.histogram import Histogram, histogram_of, merge
from service.detections import Floats

# Values counted of a tensor in an image. Extremes are always taken from all of them, and over a
# hundred images this is millions of values a tensor: the ranges do not move (tests show it).
SAMPLE: Final = 32_768


def observe(
    graph: Graph, tensors: Sequence[str], images: Iterable[Floats], threads: int
) -> dict[str, Histogram]:
    """The histogram of each named tensor over all images; one execution an image.

    Memory does not depend on the number of images. Raises UnsupportedModel when the model computes
    a value that is not finite.
    """
    watched = [name for name in tensors if name != graph.input]
    session = _session(graph, watched, threads) if watched else None
    histograms: dict[str, Histogram] = {}
    for index, image in enumerate(images):
        values = session.run(watched, {graph.input: image}) if session else []
        seen = dict(zip(watched, values, strict=True)) | {graph.input: image}
        for name in tensors:
            histogram = _sampled(name, seen[name], index)
            before = histograms.get(name)
            histograms[name] = merge(before, histogram) if before else histogram
    return histograms


def _sampled(name: str, values: Floats, phase: int) -> Histogram:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UnsupportedModel(f"{name} is not finite on a calibration image")
    # An odd stride, starting elsewhere in each image, meets every row, column and channel.
    stride = values.size // SAMPLE | 1
    return histogram_of(values.ravel()[phase % stride :: stride], low, high)


def _session(graph: Graph, watched: Sequence[str], threads: int) -> ort.InferenceSession:
    """The graph with the watched tensors as its only outputs: the decode tail is not run."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    model.graph.ClearField("output")
    for name in watched:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, graph.shapes.get(name))
        model.graph.output.append(value)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
