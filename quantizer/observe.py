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

# Of a tensor's values near zero about so many are counted in an image, each for its neighbours too:
# over a hundred images millions. The far ones, which decide where a range ends, are all counted.
SAMPLE: Final = 32_768
FAR: Final = 0.5  # of the largest magnitude: few values of a SiLU output lie beyond


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
    flat = values.ravel()
    # An odd stride, starting elsewhere in each image, meets every row, column and channel.
    stride = flat.size // SAMPLE | 1
    if stride == 1:
        return histogram_of(flat, low, high)
    limit = FAR * max(-low, high)
    sample = flat[phase % stride :: stride]
    near = histogram_of(sample[np.abs(sample) <= limit], low, high, weight=stride)
    above = flat[np.flatnonzero(flat > limit)]
    below = flat[np.flatnonzero(flat < -limit)] if low < -limit else flat[:0]
    return merge(near, histogram_of(np.concatenate([above, below]), low, high))


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
