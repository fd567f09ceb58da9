"""What the stages of a build returned: all that a report is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from quantizer.calibration.statistics import Calibration
from quantizer.compile.builder import Built
from quantizer.compile.operations import Operation
from quantizer.evaluation.accuracy_gate import Judgement
from quantizer.job import Job
from quantizer.qdq.quantize import Quantized
from quantizer.sensitivity.decision import Decision
from service.manifest import Manifest


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What the stages of a build returned, in their order."""

    job: Job
    held_out: int  # images
    assumptions: tuple[str, ...]  # about the model
    uncut: str  # why the served graph does not end at its maps; empty: it does
    calibration: Calibration
    decision: Decision
    quantized: Quantized
    built: Mapping[str, Built]
    ms: Mapping[str, float]
    operations: tuple[Operation, ...]  # of the int8 engine
    dropped: Mapping[str, str]  # candidates of the device beside the processor, and why
    judgement: Judgement
    manifest: Manifest
