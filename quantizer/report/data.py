"""What a build did and measured: report.json."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantizer.calibration.histogram import Histogram
from quantizer.calibration.ranges import RangeRule, squared_errors
from quantizer.compile.builder import INT8_NAMES, Built
from quantizer.compile.executed_layers import ExecutedLayer
from quantizer.evaluation.accuracy import Accuracy
from quantizer.evaluation.accuracy_gate import GateResult, Measure
from quantizer.int8 import Scheme
from quantizer.qdq.placement import Placement
from quantizer.qdq.quantize import GroupRange
from quantizer.sensitivity.search import Sensitivity
from quantizer.sensitivity.sqnr import decibels
from service.manifest import Precision, Runtime
from service.vision.agreement import Agreement


@dataclass(frozen=True, slots=True)
class ModelReport:
    name: str
    sha256: str
    head: str
    preprocess: str
    size: int
    classes: int
    output: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OptionsReport:
    ranges: RangeRule
    symmetric: bool
    bias_correction: bool
    keep_float: tuple[str, ...]
    min_sqnr: float
    runtime: Runtime
    threads: int


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    images: int
    held_out: int
    unreadable: tuple[str, ...]
    ms_per_image: float  # decoding, letterbox, execution and counting


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One quantized activation. `clipped` is the share of values outside the represented range,
    `sqnr_db` the signal-to-quantization-noise ratio over the calibration images."""

    tensor: str
    group: str
    observed_low: float
    observed_high: float
    floor: float | None  # the lower bound that the tensor's origin fixes
    low: float
    high: float
    scale: float
    zero_point: int
    clipped: float
    sqnr_db: float | None  # None for a tensor that is always zero


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One convolution: the plan, and what the runtime executes in each variant."""

    layer: str
    planned: str  # int8 or float
    reason: str
    reads: tuple[str, ...]  # quantized activations
    executed: Mapping[Precision, str]


@dataclass(frozen=True, slots=True)
class BlockReport:
    """Neighbouring layers that were quantized alone, and what was left of the outputs' SQNR.

    `freed` tells that the block is one layer and stays float.
    """

    layers: tuple[str, ...]
    sqnr_db: float
    freed: bool


@dataclass(frozen=True, slots=True)
class SensitivityReport:
    """The search for the layers to leave float; SQNR is that of the detector's outputs.

    `blocks` is a partition of the layers, the worst first.
    """

    wanted_db: float
    all_quantized_db: float
    reached_db: float
    executions: int
    blocks: tuple[BlockReport, ...]


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """Each variant against fp32; `held_out`: on other images than the ranges were chosen on."""

    held_out: bool
    with_fp32: Mapping[str, Agreement]


@dataclass(frozen=True, slots=True)
class VerdictReport:
    """How far a variant falls behind fp32, by `measure` (agreement, or ap), and how far it may."""

    measure: Measure
    drop: float
    limit: float
    accepted: bool


@dataclass(frozen=True, slots=True)
class GuardReport:
    """The accuracy guard; `ap` holds each variant's where annotated images were given."""

    verdicts: Mapping[str, VerdictReport]
    ap: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Int8Convolutions:
    planned: int
    executed: int


@dataclass(frozen=True, slots=True)
class Report:
    """The contents of report.json."""

    model: ModelReport
    options: OptionsReport
    calibration: CalibrationReport
    int8_convolutions: Int8Convolutions
    sensitivity: SensitivityReport | None
    agreement: AgreementReport
    guard: GuardReport
    bytes: Mapping[Precision, int]
    default: str  # the variant that answers where a request names none
    ms: Mapping[Precision, float]  # median of one inference, the variants timed in turns
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    warnings: tuple[str, ...]
    layers: tuple[LayerReport, ...]
    engine_layers: Mapping[Precision, tuple[ExecutedLayer, ...]]  # where the runtime lists them
    tensors: tuple[TensorReport, ...]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def sensitivity_report(
    sensitivity: Sensitivity | None, wanted_db: float
) -> SensitivityReport | None:
    """Noise powers as decibels."""
    if sensitivity is None:
        return None
    return SensitivityReport(
        wanted_db,
        round(decibels(sensitivity.before), 2),
        round(decibels(sensitivity.after), 2),
        sensitivity.executions,
        tuple(
            BlockReport(block.layers, round(decibels(block.noise), 2), block.kept_float)
            for block in sensitivity.blocks
        ),
    )


def guard_report(
    verdicts: Mapping[str, GateResult], accuracies: Mapping[str, Accuracy] | None
) -> GuardReport:
    """The guard's verdicts with what they rest on."""
    return GuardReport(
        {
            name: VerdictReport(v.measure, round(v.drop, 4), v.limit, v.accepted)
            for name, v in verdicts.items()
        },
        None if accuracies is None else {name: a.ap for name, a in accuracies.items()},
    )


def layer_reports(
    placement: Placement, built: Mapping[Precision, Built]
) -> tuple[LayerReport, ...]:
    """Every convolution, quantized ones first, each in the graph's order."""
    plan = [(site.layer, "int8", "", site.reads) for site in placement.weights]
    plan += [(kept.layer, "float", kept.reason, ()) for kept in placement.kept_float]
    return tuple(
        LayerReport(
            layer,
            planned,
            reason,
            reads,
            {name: part.executed.get(layer, "unknown") for name, part in built.items()},
        )
        for layer, planned, reason, reads in plan
    )


def int8_convolutions(layers: tuple[LayerReport, ...]) -> Int8Convolutions:
    """How many were planned, and how many of those really run on integers."""
    planned = [layer for layer in layers if layer.planned == "int8"]
    executed = [layer for layer in planned if layer.executed["int8"] in INT8_NAMES]
    return Int8Convolutions(len(planned), len(executed))


def tensor_reports(
    placement: Placement,
    histograms: Mapping[str, Histogram],
    ranges: Mapping[str, GroupRange],
    scheme: Scheme,
) -> tuple[TensorReport, ...]:
    """What its range does to the values of every quantized activation."""
    return tuple(
        _tensor_report(site.tensor, site.group, histograms[site.tensor], ranges[site.group], scheme)
        for site in placement.activations
    )


def _tensor_report(
    tensor: str, group: str, histogram: Histogram, choice: GroupRange, scheme: Scheme
) -> TensorReport:
    scale, zero = float(choice.params.scale), int(choice.params.zero_point)
    low, high = (scheme.lowest - zero) * scale, (scheme.highest - zero) * scale
    bins = histogram.bins
    outside = (bins.centres < low - scale / 2) | (bins.centres > high + scale / 2)
    signal = float(bins.counts @ np.square(bins.centres))
    bounds = choice.bounds
    (noise,) = squared_errors(bins, np.array([bounds.low]), np.array([bounds.high]), scheme)
    return TensorReport(
        tensor=tensor,
        group=group,
        observed_low=histogram.low,
        observed_high=histogram.high,
        floor=choice.floor,
        low=low,
        high=high,
        scale=scale,
        zero_point=zero,
        clipped=float(bins.counts[outside].sum() / bins.counts.sum()),
        sqnr_db=round(10 * float(np.log10(signal / noise)), 2) if signal and noise else None,
    )
