"""What a person should know about a build before they serve it."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from quantizer.report.findings import Findings
from quantizer.report.layers import Int8Convolutions, LayerReport

FEW_IMAGES: Final = 16  # below this a range depends on chance


def warnings(
    findings: Findings, layers: tuple[LayerReport, ...], counts: Int8Convolutions
) -> Iterator[str]:
    """One sentence each."""
    yield from findings.assumptions
    for pattern in findings.job.config.keep_float:
        if not any(fnmatchcase(layer.layer, pattern) for layer in layers):
            yield f"keep_float {pattern} matches no convolution"
    images, undecodable = len(findings.calibration.images), len(findings.calibration.undecodable)
    if images < FEW_IMAGES:
        yield (
            f"only {images} usable calibration images: below {FEW_IMAGES} the ranges "
            "depend on chance; use at least 100 like those the detector will see"
        )
    if findings.decision.sensitivity is None:
        yield (
            "the float model detects nothing in the calibration images, so the sensitivity of the "
            "layers could not be measured: every layer is quantized"
        )
    if findings.uncut:
        yield f"the engines run the whole graph, decode tail included: {findings.uncut}"
    for name, reason in findings.manifest.rejected.items():
        yield f"{name} is not the default: {reason}; it is served to requests that name it"
    for name, reason in findings.dropped.items():
        yield f"{name} is dropped, the processor's variants are served: {reason}"
    if undecodable:
        yield f"{undecodable} images could not be decoded and were skipped"
    if counts.executed < counts.planned:
        yield (
            f"{counts.planned - counts.executed} of {counts.planned} quantized convolutions do not "
            "run in int8 here: see layers in the report"
        )
    if counts.planned == 0:
        yield "no convolution is quantized: int8 is the float model"
