"""What the stages of a build returned -> the contents of report.json.

The names of the fields are the file's format. `freed` and `guard` in it stand for a kept float
layer and for the accuracy gate.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from quantizer.calibration.ranges import RangeRule
from quantizer.compile.executed_layers import ExecutedLayer
from quantizer.evaluation.accuracy_gate import GateResult
from quantizer.report.execution import ExecutionReport
from quantizer.report.findings import Findings
from quantizer.report.layers import Int8Convolutions, LayerReport
from quantizer.report.tensors import TensorReport
from quantizer.report.warnings import warnings
from quantizer.sensitivity.decision import MAX_LOSS, Point, Sensitivity
from quantizer.sensitivity.sqnr import decibels
from service.manifest import Runtime
from service.vision.agreement import Agreement


@dataclass(frozen=True, slots=True)
class ModelReport:
    name: str
    sha256: str
    head: str
    preprocess: str
    size: int  # the longer side of the input image
    width: int
    height: int
    classes: int
    output: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class OptionsReport:
    size: str | None  # as it was given
    ranges: RangeRule
    symmetric: bool
    bias_correction: bool
    adaptive_rounding: bool
    equalisation: bool
    range_refinement: bool
    keep_float: tuple[str, ...]
    min_sqnr: float | None
    max_drop: float | None  # None: the accuracy gate's limit
    runtime: Runtime
    accelerator: str | None  # OpenVINO's name of the device beside the processor
    target: tuple[str, ...]  # the GPUs elsewhere that it was built for; empty: this machine
    threads: int


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    images: int
    held_out: int
    unreadable: tuple[str, ...]  # names of the files that could not be decoded
    ms_per_image: float  # decoding, letterbox, execution and counting


@dataclass(frozen=True, slots=True)
class BlockReport:
    """One layer, and the SQNR of the outputs when it alone is quantized.

    `freed` is true for a layer that stays float.
    """

    layers: tuple[str, ...]
    sqnr_db: float
    freed: bool


@dataclass(frozen=True, slots=True)
class PointReport:
    """A set of layers that could stay float: the predicted loss of detections, 0..1, and the time
    that they add, estimated, as a fraction of the time of all convolutions in int8."""

    kept_float: tuple[str, ...]
    loss: float
    cost: float


@dataclass(frozen=True, slots=True)
class SensitivityReport:
    """The search for the layers that stay float; SQNR is that of the detector's outputs.

    `blocks` has all layers, the most sensitive first, or none where no layer has to stay float.
    `frontier` holds the sets of float layers that were compared; the last is the one that was
    built. It is empty where `wanted_db` is given.
    """

    wanted_db: float | None
    max_loss: float
    frontier: tuple[PointReport, ...]
    all_quantized_db: float
    reached_db: float
    executions: int
    blocks: tuple[BlockReport, ...]

    @classmethod
    def of(cls, search: Sensitivity, wanted_db: float | None, points: tuple[Point, ...]) -> Self:
        before, after = round(decibels(search.before), 2), round(decibels(search.after), 2)
        kept_float = {*search.found.kept_float}
        blocks = (
            BlockReport((each.layer,), round(decibels(each.noise), 2), each.layer in kept_float)
            for each in search.found.layers
        )
        frontier = tuple(
            PointReport(point.kept_float, round(point.loss, 4), point.cost) for point in points
        )
        return cls(wanted_db, MAX_LOSS, frontier, before, after, search.executions, tuple(blocks))


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """Each variant against fp32; `held_out`: on images that were not calibrated on."""

    held_out: bool
    with_fp32: Mapping[str, Agreement]


@dataclass(frozen=True, slots=True)
class GateReport:
    """The accuracy gate; `ap` is each variant's, where annotated images were given."""

    verdicts: Mapping[str, GateResult]
    ap: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Report:
    """The contents of report.json."""

    model: ModelReport
    options: OptionsReport
    calibration: CalibrationReport
    int8_convolutions: Int8Convolutions
    sensitivity: SensitivityReport | None
    agreement: AgreementReport
    guard: GateReport
    bytes: Mapping[str, int]
    rejected_candidates: Mapping[str, str]  # of that device, and why each is not served
    default: str  # the variant that requests without `variant` use
    ms: Mapping[str, float]  # median of one inference, the variants timed in alternation
    seconds: Mapping[str, float]  # of each stage of the build
    versions: Mapping[str, str]
    warnings: tuple[str, ...]
    layers: tuple[LayerReport, ...]
    execution: ExecutionReport | None  # of the int8 engine, where the runtime reports times
    engine_layers: Mapping[str, tuple[ExecutedLayer, ...]]  # where the runtime lists them
    tensors: tuple[TensorReport, ...]

    @classmethod
    def of(cls, findings: Findings) -> Self:
        config, seconds, manifest = findings.job.config, findings.job.seconds, findings.manifest
        calibration, sensitivity = findings.calibration, findings.decision.sensitivity
        undecodable = tuple(path.name for path in calibration.undecodable)
        files = len(calibration.images) + len(undecodable)
        layers = LayerReport.of_all(
            findings.decision.placement, findings.built, findings.operations
        )
        counts = Int8Convolutions.of(layers)
        return cls(
            model=ModelReport(
                name=manifest.name,
                sha256=manifest.source_sha256,
                head=manifest.head,
                preprocess=manifest.preprocess,
                size=manifest.size.longest,
                width=manifest.size.width,
                height=manifest.size.height,
                classes=len(manifest.class_names),
                output=manifest.output_shape,
            ),
            options=OptionsReport(
                size=None if config.size is None else str(config.size),
                ranges=config.ranges,
                symmetric=config.symmetric,
                bias_correction=config.bias_correction,
                adaptive_rounding=config.adaptive_rounding,
                equalisation=config.equalisation,
                range_refinement=config.range_refinement,
                keep_float=config.keep_float,
                min_sqnr=config.min_sqnr,
                max_drop=config.max_drop,
                runtime=findings.built["fp32"].variant.runtime,
                accelerator=config.accelerator,
                target=config.target,
                threads=config.threads,
            ),
            calibration=CalibrationReport(
                images=len(calibration.images),
                held_out=findings.held_out,
                unreadable=undecodable,
                ms_per_image=round(seconds["calibrate"] * 1000 / files, 2),
            ),
            int8_convolutions=counts,
            sensitivity=SensitivityReport.of(
                sensitivity, config.min_sqnr, findings.decision.frontier
            )
            if sensitivity
            else None,
            agreement=AgreementReport(
                findings.held_out > 0, findings.judgement.comparison.agreements
            ),
            guard=GateReport(findings.judgement.results, findings.judgement.ap),
            bytes={name: part.bytes for name, part in findings.built.items()},
            rejected_candidates=findings.dropped,
            default=manifest.default,
            ms=findings.ms,
            seconds=seconds,
            versions=manifest.versions,
            warnings=tuple(warnings(findings, layers, counts)),
            layers=layers,
            execution=ExecutionReport.of(findings.operations),
            engine_layers={
                name: part.layers for name, part in findings.built.items() if part.layers
            },
            tensors=tuple(
                TensorReport.of(
                    site,
                    calibration.statistics.histograms[site.tensor],
                    findings.quantized.ranges[site.group],
                    findings.job.scheme,
                )
                for site in findings.decision.placement.activations
            ),
        )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
