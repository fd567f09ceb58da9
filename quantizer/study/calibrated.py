"""A calibrated detector, from which the graph of any setting is made.

The Q/DQ graph is the one that a build would make, executed by ONNX Runtime; at 8 bits both are
equal. As in the paper, the first convolution and those of the output stay float.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from quantizer.calibration import statistics
from quantizer.calibration.activation_statistics import ActivationStatistics, input_statistics
from quantizer.calibration.images import ImageFiles, find_images
from quantizer.calibration.statistics import Statistics
from quantizer.int8 import Range, Scheme, WeightScheme
from quantizer.model.decode_tail import last_convolutions
from quantizer.model.graph import Graph, layer_name
from quantizer.model.layout import FloatDetector
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.placement import Placement, plan_placement
from quantizer.qdq.quantize import Ranges, quantize
from quantizer.qdq.rounding import adaptive_rounding
from quantizer.qdq.weights import Weights, round_to_nearest
from quantizer.sensitivity.simulation import SensitivitySample, find_samples, noise_of
from quantizer.sensitivity.sqnr import Reading, decibels
from quantizer.study.settings import Setting
from service.progress import ReportProgress

SAMPLES: Final = 16  # images for the signal-to-quantization-noise ratio


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """`inputs` are the statistics of the layers' inputs; only adaptive rounding needs them."""

    images: int
    graph: Graph
    image_range: Range
    placement: Placement  # with weights and activations quantized
    statistics: Statistics
    inputs: Mapping[str, ActivationStatistics]
    samples: Sequence[SensitivitySample]
    threads: int

    def model(self, setting: Setting) -> onnx.ModelProto:
        """The graph that computes in float what a setting's integer kernels would."""
        placement = Placement(
            self.placement.activations if setting.activations else (),
            self.placement.weights if setting.weights else (),
            self.placement.kept_float,
        )
        scheme = Scheme(setting.symmetric, setting.activations or 8)
        histograms = self.statistics.histograms
        ranges = Ranges(self.graph, histograms, setting.ranges, scheme, self.image_range)
        method = setting.method
        weights = Weights(
            self.graph,
            WeightScheme(method.clipping, setting.weights or 8),
            adaptive_rounding(self.inputs) if method.rounding == "adaptive" else round_to_nearest,
        )
        means = self.statistics.channel_means if method.bias_correction else None
        return quantize(self.graph, placement, ranges, weights, means).model

    def sqnr(self, model: onnx.ModelProto) -> float:
        """The SQNR of a quantized graph's outputs over the samples, in decibels."""
        feeds = ({self.graph.input: sample.image} for sample in self.samples)
        references = [sample.reference for sample in self.samples]
        return round(decibels(noise_of(model, feeds, references, self.threads)), 2)


def calibrate(
    detector: FloatDetector,
    calibration: Path,
    evaluated: Path,
    threads: int,
    adaptive: bool,
    progress: ReportProgress,
) -> Calibrated:
    """Statistics from the images in `calibration`, samples from those in `evaluated`.

    Raises NoCalibrationImages.
    """
    graph, size, preprocess = detector.graph, detector.size, detector.preprocess
    placement = plan_placement(graph, first_and_last(graph))
    averaged = averaged_tensors(graph, placement)
    files = ImageFiles(find_images(calibration), size, preprocess)
    calibrated = statistics.calibrate(graph, placement.tensors, averaged, files, threads, progress)
    inputs: Mapping[str, ActivationStatistics] = {}
    if adaptive:
        tensors = ImageFiles(calibrated.images, size, preprocess).decodable(progress)
        inputs = input_statistics(graph, placement.layers, tensors, threads)
    reading = Reading.of(detector.head, size)
    sampled = ImageFiles(find_images(evaluated), size, preprocess).decodable()
    return Calibrated(
        images=len(calibrated.images),
        graph=graph,
        image_range=Range(0.0, 255 / preprocess.divisor),
        placement=placement,
        statistics=calibrated.statistics,
        inputs=inputs,
        samples=find_samples(graph.model, reading, sampled, threads, SAMPLES),
        threads=threads,
    )


def first_and_last(graph: Graph) -> dict[str, str]:
    """The convolutions next to the image and to the output, with the reason to keep them float."""
    convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
    first = [node for node in convolutions if _reads_image(graph, node.input[0])]
    return {layer_name(node): "first convolution" for node in first} | {
        layer_name(node): "last convolution" for node in last_convolutions(graph)
    }


def _reads_image(graph: Graph, tensor: str) -> bool:
    """Whether no convolution stands between the image and this tensor."""
    producer = graph.producer.get(tensor)
    if producer is None:
        return True
    return producer.op_type != "Conv" and all(
        _reads_image(graph, name) for name in graph.activations_of(producer)
    )
