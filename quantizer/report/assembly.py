"""What the stages of a build returned -> its report."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

import numpy as np

from quantizer.calibration.histogram import Histogram
from quantizer.calibration.ranges import squared_errors
from quantizer.calibration.statistics import Calibration
from quantizer.compile.builder import INT8_NAMES, Built
from quantizer.config import BuildConfig
from quantizer.evaluation.accuracy_gate import Judgement
from quantizer.int8 import Scheme
from quantizer.qdq.placement import ActivationSite, Placement
from quantizer.qdq.quantize import GroupRange, Quantized
from quantizer.report.data import (
    AgreementReport,
    BlockReport,
    CalibrationReport,
    GateReport,
    GateResultReport,
    Int8Convolutions,
    LayerReport,
    ModelReport,
    OptionsReport,
    Report,
    SensitivityReport,
    TensorReport,
)
from quantizer.sensitivity.decision import Decision
from quantizer.sensitivity.search import Sensitivity
from quantizer.sensitivity.sqnr import decibels
from service.manifest import Manifest, Precision

FEW_IMAGES: Final = 16  # below this a range depends on chance


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What the stages of a build returned, in their order."""

    config: BuildConfig  # with the symmetry and the threads that the build chose
    held_out: int  # images
    calibration: Calibration
    decision: Decision
    scheme: Scheme  # of the activations
    quantized: Quantized
    built: Mapping[Precision, Built]
    ms: Mapping[Precision, float]
    judgement: Judgement
    manifest: Manifest
    seconds: Mapping[str, float]  # by stage


def report_of(found: Findings) -> Report:
    """The report of a build."""
    config, manifest, judgement = found.config, found.manifest, found.judgement
    histograms = found.calibration.statistics.histograms
    calibration = _calibration_report(found)
    layers = layer_reports(found.decision.placement, found.built)
    return Report(
        model=ModelReport(
            name=manifest.name,
            sha256=manifest.source_sha256,
            head=manifest.head,
            preprocess=manifest.preprocess,
            size=manifest.size,
            classes=len(manifest.class_names),
            output=manifest.output_shape,
        ),
        options=OptionsReport(
            ranges=config.ranges,
            symmetric=config.symmetric,
            bias_correction=config.bias_correction,
            keep_float=config.keep_float,
            min_sqnr=config.min_sqnr,
            runtime=found.built["fp32"].variant.runtime,
            threads=config.threads,
        ),
        calibration=calibration,
        int8_convolutions=int8_convolutions(layers),
        sensitivity=_sensitivity_report(found.decision.sensitivity, config.min_sqnr),
        agreement=AgreementReport(found.held_out > 0, judgement.comparison.agreements),
        guard=_gate_report(judgement),
        bytes={name: part.bytes for name, part in found.built.items()},
        default=manifest.default,
        ms=found.ms,
        seconds=found.seconds,
        versions=manifest.versions,
        warnings=tuple(_warnings(found, calibration, layers)),
        layers=layers,
        engine_layers={name: part.layers for name, part in found.built.items() if part.layers},
        tensors=tuple(
            tensor_report(
                site, histograms[site.tensor], found.quantized.ranges[site.group], found.scheme
            )
            for site in found.decision.placement.activations
        ),
    )


def _calibration_report(found: Findings) -> CalibrationReport:
    images, undecodable = found.calibration.images, found.calibration.undecodable
    ms = found.seconds["calibrate"] * 1000
    return CalibrationReport(
        images=len(images),
        held_out=found.held_out,
        unreadable=tuple(path.name for path in undecodable),
        ms_per_image=round(ms / (len(images) + len(undecodable)), 2),
    )


def _sensitivity_report(found: Sensitivity | None, wanted_db: float) -> SensitivityReport | None:
    if found is None:
        return None
    return SensitivityReport(
        wanted_db,
        round(decibels(found.before), 2),
        round(decibels(found.after), 2),
        found.executions,
        tuple(
            BlockReport(block.layers, round(decibels(block.noise), 2), block.kept_float)
            for block in found.blocks
        ),
    )


def _gate_report(judgement: Judgement) -> GateReport:
    accuracies = judgement.accuracies
    return GateReport(
        {
            name: GateResultReport(r.measure, round(r.drop, 4), r.limit, r.accepted)
            for name, r in judgement.results.items()
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
    """How many were planned, and how many of those the runtime executes on integers."""
    planned = [layer for layer in layers if layer.planned == "int8"]
    executed = [layer for layer in planned if layer.executed["int8"] in INT8_NAMES]
    return Int8Convolutions(len(planned), len(executed))


def tensor_report(
    site: ActivationSite, histogram: Histogram, chosen: GroupRange, scheme: Scheme
) -> TensorReport:
    """The effect of its range on the values of one quantized activation."""
    scale, zero = float(chosen.params.scale), int(chosen.params.zero_point)
    low, high = (scheme.lowest - zero) * scale, (scheme.highest - zero) * scale
    bins = histogram.bins
    outside = (bins.centres < low - scale / 2) | (bins.centres > high + scale / 2)
    signal = float(bins.counts @ np.square(bins.centres))
    bounds = chosen.bounds
    (noise,) = squared_errors(bins, np.array([bounds.low]), np.array([bounds.high]), scheme)
    return TensorReport(
        tensor=site.tensor,
        group=site.group,
        observed_low=histogram.low,
        observed_high=histogram.high,
        floor=chosen.floor,
        low=low,
        high=high,
        scale=scale,
        zero_point=zero,
        clipped=float(bins.counts[outside].sum() / bins.counts.sum()),
        sqnr_db=round(10 * float(np.log10(signal / noise)), 2) if signal and noise else None,
    )


def _warnings(
    found: Findings, calibration: CalibrationReport, layers: tuple[LayerReport, ...]
) -> Iterator[str]:
    for pattern in found.config.keep_float:
        if not any(fnmatchcase(layer.layer, pattern) for layer in layers):
            yield f"keep_float {pattern} matches no convolution"
    if calibration.images < FEW_IMAGES:
        yield (
            f"only {calibration.images} usable calibration images: below {FEW_IMAGES} the ranges "
            "depend on chance; use at least 100 like those the detector will see"
        )
    if found.decision.sensitivity is None:
        yield (
            "the float model detects nothing in the calibration images, so the sensitivity of the "
            "layers could not be measured: every layer is quantized"
        )
    for name, reason in found.manifest.rejected.items():
        yield f"{name} is not the default: {reason}; it is served to requests that name it"
    if calibration.unreadable:
        yield f"{len(calibration.unreadable)} images could not be decoded and were skipped"
    counts = int8_convolutions(layers)
    if counts.executed < counts.planned:
        yield (
            f"{counts.planned - counts.executed} of {counts.planned} quantized convolutions do not "
            "run in int8 here: see layers in the report"
        )
    if counts.planned == 0:
        yield "no convolution is quantized: int8 is the float model"
