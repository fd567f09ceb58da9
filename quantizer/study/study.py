"""The paper's tables on any model: range rules at 8, 6 and 4 bits, weights and activations apart.

Source of the layout: Q-YOLO (arXiv 2307.04816), tables 1 to 3. Quantization is simulated by the
Q/DQ graph that a build would make, executed by ONNX Runtime; at 8 bits it is that very graph. As in
the paper, the first convolution and those of the output stay float.

AP on few images is noisy, so the outputs' signal-to-noise ratio is measured as well.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import onnx

from quantizer.calibration.images import ImageFiles, find_images
from quantizer.calibration.ranges import RANGE_RULES, RangeRule
from quantizer.calibration.statistics import Statistics, calibrate
from quantizer.config import AnnotatedDataset
from quantizer.evaluation.accuracy import Accuracy, evaluate_detectors
from quantizer.evaluation.detectors import graph_detector, graph_manifest
from quantizer.int8 import Range, Scheme, WeightRule, WeightScheme
from quantizer.model.decode_tail import last_convolutions
from quantizer.model.execution import AT_ONCE
from quantizer.model.graph import Graph, layer_name
from quantizer.model.layout import FloatDetector, read_detector
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.placement import Placement, plan_placement
from quantizer.qdq.quantize import Ranges, quantize
from quantizer.qdq.weights import Weights, round_to_nearest
from quantizer.sensitivity.simulation import SensitivitySample, find_samples, noise_of
from quantizer.sensitivity.sqnr import decibels
from quantizer.study.activation_statistics import ActivationStatistics, input_statistics
from quantizer.study.rounding import adaptive_rounding
from service.progress import Progress, ReportProgress

ALL_BITS: Final = (8, 6, 4)
SAMPLES: Final = 16  # images for the signal-to-noise ratio
Rounding = Literal["nearest", "adaptive"]


@dataclass(frozen=True, slots=True)
class WeightMethod:
    """How weights become integers. To adaptive rounding belong corrected biases: it leaves the mean
    of the errors to them."""

    clipping: WeightRule = "minmax"
    bias_correction: bool = False
    rounding: Rounding = "nearest"


AS_THE_PAPER: Final = WeightMethod()
BETTER_WEIGHTS: Final = (
    WeightMethod("mse"),
    WeightMethod(bias_correction=True),
    WeightMethod("mse", bias_correction=True),
    WeightMethod(bias_correction=True, rounding="adaptive"),
    WeightMethod("mse", bias_correction=True, rounding="adaptive"),
)
BEST_WEIGHTS: Final = BETTER_WEIGHTS[-1]


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to quantize; None leaves weights or activations float."""

    weights: int | None = None  # bits
    activations: int | None = None
    ranges: RangeRule = "uh"
    symmetric: bool = False
    method: WeightMethod = AS_THE_PAPER

    @property
    def bits(self) -> str:
        """Weights and activations, as the paper writes it."""
        return f"{self.weights or 32}-{self.activations or 32}"


@dataclass(frozen=True, slots=True)
class Result:
    setting: Setting
    accuracy: Accuracy
    sqnr: float  # dB of the outputs, over the first images in which something is seen


@dataclass(frozen=True, slots=True)
class Study:
    """What was measured, float model first."""

    model: str
    sha256: str
    calibration_images: int
    images: int
    kept_float: tuple[str, ...]
    results: tuple[Result, ...]
    versions: Mapping[str, str]

    def of(self, **wanted: object) -> Result | None:
        """The result of the setting that has these values, and the defaults elsewhere."""
        return self.result(Setting(**wanted))  # type: ignore[arg-type]

    def result(self, setting: Setting) -> Result | None:
        """The result of a setting, if it was measured."""
        return next((each for each in self.results if each.setting == setting), None)

    def to_json(self) -> str:
        """Without the accuracy of each class, a long read a hundred settings times over."""
        document = dataclasses.asdict(self)
        for result in document["results"]:
            del result["accuracy"]["classes"]
        return json.dumps(document, indent=2) + "\n"


def settings(bits: Sequence[int] = ALL_BITS) -> Iterator[Setting]:
    """The float model, then the paper's three tables, then what better weights add to UH."""
    yield Setting()
    for b in bits:
        for rule in RANGE_RULES:
            for symmetric in (False, True):
                yield Setting(b, b, rule, symmetric)
                yield Setting(None, b, rule, symmetric)
        yield Setting(b, None)
        for method in BETTER_WEIGHTS:
            yield Setting(b, b, method=method)
        yield Setting(b, None, method=BEST_WEIGHTS)
        yield Setting(b, b, "percentile", method=BEST_WEIGHTS)


def study(
    model: Path,
    calibration: Path,
    truth: AnnotatedDataset,
    size: int,
    threads: int,
    wanted: Sequence[Setting],
    progress: ReportProgress,
) -> Study:
    """Calibrate once, then measure the COCO AP of every setting.

    Raises UnsupportedModel, NoCalibrationImages or BadAnnotations.
    """
    detector = read_detector(model, size)
    manifest = graph_manifest(model, detector)
    adaptive = any(setting.method.rounding == "adaptive" for setting in wanted)
    calibrated = _calibrate(detector, calibration, truth, threads, adaptive, progress)
    results: list[Result] = []
    count = 0
    progress(Progress("study", 0, len(wanted)))
    for start in range(0, len(wanted), AT_ONCE):
        some = {setting: calibrated.model(setting) for setting in wanted[start : start + AT_ONCE]}
        detectors = {
            str(number): graph_detector(model, manifest, max(1, threads // AT_ONCE))
            for number, model in enumerate(some.values())
        }
        found = evaluate_detectors(detectors, manifest, truth, lambda _: None, AT_ONCE)
        count = found.images
        results += [
            Result(setting, accuracy, calibrated.sqnr(model))
            for (setting, model), accuracy in zip(
                some.items(), found.variants.values(), strict=True
            )
        ]
        progress(Progress("study", len(results), len(wanted)))
    return Study(
        model=model.stem,
        sha256=manifest.source_sha256,
        calibration_images=calibrated.images,
        images=count,
        kept_float=tuple(kept.layer for kept in calibrated.whole.kept_float),
        results=tuple(results),
        versions=manifest.versions,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """A detector, and what the calibration images say of it."""

    images: int
    graph: Graph
    image_range: Range
    whole: Placement
    observed: Statistics
    statistics: Mapping[
        str, ActivationStatistics
    ]  # none unless weights are to be rounded adaptively
    samples: Sequence[SensitivitySample]
    threads: int

    def model(self, setting: Setting) -> onnx.ModelProto:
        """The graph that computes what a setting's integer kernels would, in float."""
        placement = Placement(
            self.whole.activations if setting.activations else (),
            self.whole.weights if setting.weights else (),
            self.whole.kept_float,
        )
        scheme = Scheme(setting.symmetric, setting.activations or 8)
        histograms = self.observed.histograms
        ranges = Ranges(self.graph, histograms, setting.ranges, scheme, self.image_range)
        how = WeightScheme(setting.method.clipping, setting.weights or 8)
        adaptive = setting.method.rounding == "adaptive"
        rounding = adaptive_rounding(self.statistics) if adaptive else round_to_nearest
        weights = Weights(self.graph, how, rounding)
        means = self.observed.channel_means if setting.method.bias_correction else None
        return quantize(self.graph, placement, ranges, weights, means).model

    def sqnr(self, model: onnx.ModelProto) -> float:
        """Decibels of a quantized graph's outputs over the probes."""
        return round(decibels(noise_of(model, self.samples, self.threads)), 2)


def _calibrate(
    detector: FloatDetector,
    calibration: Path,
    truth: AnnotatedDataset,
    threads: int,
    adaptive: bool,
    progress: ReportProgress,
) -> Calibrated:
    graph, size, preprocess = detector.graph, detector.size, detector.preprocess
    whole = plan_placement(graph, first_and_last(graph))
    averaged = averaged_tensors(graph, whole)
    files = ImageFiles(find_images(calibration), size, preprocess)
    found = calibrate(graph, whole.tensors, averaged, files, threads, progress)
    statistics: Mapping[str, ActivationStatistics] = {}
    if adaptive:
        again = ImageFiles(found.images, size, preprocess).decodable(progress)
        statistics = input_statistics(graph, whole.layers, again, threads)
    evaluated = ImageFiles(find_images(truth.images), size, preprocess).decodable()
    return Calibrated(
        images=len(found.images),
        graph=graph,
        image_range=Range(0.0, 255 / preprocess.divisor),
        whole=whole,
        observed=found.statistics,
        statistics=statistics,
        samples=find_samples(graph, detector.head, size, evaluated, threads, SAMPLES),
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
    """Whether no convolution lies between the image and this tensor."""
    maker = graph.producer.get(tensor)
    if maker is None:
        return True
    return maker.op_type != "Conv" and all(
        _reads_image(graph, name) for name in graph.activations_of(maker)
    )
