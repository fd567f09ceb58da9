"""The paper's tables on any model: range rules at 8, 6 and 4 bits, weights and activations apart.

Source of the layout: Q-YOLO (arXiv 2307.04816), tables 1 to 3. Quantization is simulated by the
Q/DQ graph that a build would make, executed by ONNX Runtime; at 8 bits it is that very graph. As in
the paper, the first convolution and those of the output stay float.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from quantizer.bias import averaged_tensors
from quantizer.calibration import Images, find_images
from quantizer.errors import NoCalibrationImages
from quantizer.evaluate import Accuracy, evaluate_detectors
from quantizer.execution import open_session
from quantizer.float_model import read_float_model
from quantizer.graph import Graph
from quantizer.int8 import Range, Scheme, WeightRule, WeightScheme
from quantizer.layout import Layout, recognise
from quantizer.observe import Observed, observe
from quantizer.placement import Placement, first_and_last, plan_placement
from quantizer.quantize import Ranges, quantize
from quantizer.ranges import RANGE_RULES, RangeRule
from quantizer.recipe import Truth
from quantizer.versions import sha256_of, versions
from service.detections import Floats
from service.detector import Detector
from service.manifest import Manifest, Variant
from service.preprocess import PREPROCESS
from service.readiness import Progress, ReportProgress

ALL_BITS: Final = (8, 6, 4)


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to quantize; None leaves weights or activations float."""

    weights: int | None = None  # bits
    activations: int | None = None
    ranges: RangeRule = "uh"
    symmetric: bool = False
    weight_rule: WeightRule = "minmax"
    bias_correction: bool = False

    @property
    def bits(self) -> str:
        """Weights and activations, as the paper writes it."""
        return f"{self.weights or 32}-{self.activations or 32}"


@dataclass(frozen=True, slots=True)
class Result:
    setting: Setting
    accuracy: Accuracy


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

    def of(self, **wanted: object) -> Accuracy | None:
        """The accuracy of the setting that has these values, and the defaults elsewhere."""
        setting = Setting(**wanted)  # type: ignore[arg-type]
        return next((r.accuracy for r in self.results if r.setting == setting), None)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def settings(bits: Sequence[int] = ALL_BITS) -> Iterator[Setting]:
    """The float model, then the paper's three tables, then what better weights add to UH."""
    yield Setting()
    for b in bits:
        for rule in RANGE_RULES:
            for symmetric in (False, True):
                yield Setting(b, b, rule, symmetric)
                yield Setting(None, b, rule, symmetric)
        yield Setting(b, None)
        yield Setting(b, None, weight_rule="mse", bias_correction=True)
        yield Setting(b, b, weight_rule="mse")
        yield Setting(b, b, bias_correction=True)
        yield Setting(b, b, weight_rule="mse", bias_correction=True)


def study(
    model: Path,
    calibration: Path,
    truth: Truth,
    size: int,
    threads: int,
    wanted: Sequence[Setting],
    progress: ReportProgress,
) -> Study:
    """Calibrate once, then measure the COCO AP of every setting.

    Raises UnsupportedModel, NoCalibrationImages or BadAnnotations.
    """
    read = read_float_model(model, size)
    layout = recognise(read)
    graph = read.graph
    kept = first_and_last(graph)
    whole = plan_placement(graph, kept)
    images = Images(find_images(calibration))
    how = PREPROCESS[layout.preprocess]
    observed = observe(
        graph,
        whole.tensors,
        images.usable(size, how, progress),
        threads,
        averaged_tensors(graph, whole),
    )
    usable = len(images.paths) - len(images.unreadable)
    if usable == 0:
        raise NoCalibrationImages(f"no image in {calibration} can be decoded")
    image_range = Range(0.0, 255 / how.divisor)
    manifest = _manifest(model, layout, size)
    results: list[Result] = []
    count = 0
    progress(Progress("study", 0, len(wanted)))
    for done, setting in enumerate(wanted, start=1):
        simulated = Simulated(graph, whole, observed, image_range, setting, threads)
        found = evaluate_detectors(
            {"fp32": Detector(simulated, manifest)},
            manifest,
            truth.images,
            truth.annotations,
            lambda _: None,
        )
        count = found.images
        results.append(Result(setting, found.variants["fp32"]))
        progress(Progress("study", done, len(wanted)))
    return Study(
        model=model.stem,
        sha256=manifest.source_sha256,
        calibration_images=usable,
        images=count,
        kept_float=tuple(kept),
        results=tuple(results),
        versions=manifest.versions,
    )


class Simulated:
    """An engine that computes what a setting's integer kernels would, in float."""

    def __init__(
        self,
        graph: Graph,
        whole: Placement,
        observed: Observed,
        image_range: Range,
        setting: Setting,
        threads: int,
    ) -> None:
        placement = Placement(
            whole.activations if setting.activations else (),
            whole.weights if setting.weights else (),
            whole.kept_float,
        )
        scheme = Scheme(setting.symmetric, setting.activations or 8)
        ranges = Ranges(graph, observed.histograms, setting.ranges, scheme, image_range)
        means = observed.channel_means if setting.bias_correction else None
        weights = WeightScheme(setting.weight_rule, setting.weights or 8)
        self.model = quantize(graph, placement, ranges, means, weights).model
        self._session = open_session(self.model, threads)
        self._input = graph.input

    def infer(self, tensor: Floats) -> Floats:
        (raw, *_) = self._session.run(None, {self._input: tensor})
        return np.asarray(raw, np.float32)

    def close(self) -> None:
        """Nothing is held but memory."""


def _manifest(model: Path, layout: Layout, size: int) -> Manifest:
    """What a detector needs to know of the model; its one variant is the float graph."""
    return Manifest(
        name=model.stem,
        device="cpu",
        size=size,
        head=layout.head,
        preprocess=layout.preprocess,
        class_names=layout.class_names,
        default="fp32",
        variants={"fp32": Variant(runtime="onnxruntime", precision="fp32", model=model.name)},
        source_sha256=sha256_of(model),
        versions=versions(),
        created="",
    )
