"""The contents of report.json: what a build was given, decided and measured.

The names of the fields are the file's format. `freed` and `guard` in it stand for a kept float
layer and for the accuracy gate.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from quantizer.calibration.ranges import RangeRule
from quantizer.compile.executed_layers import ExecutedLayer
from quantizer.evaluation.accuracy_gate import Measure
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
    output: tuple[int, ...] | None


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
    unreadable: tuple[str, ...]  # names of the files that could not be decoded
    ms_per_image: float  # decoding, letterbox, execution and counting


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One quantized activation.

    `clipped` is the share of values outside the represented range, `sqnr_db` the
    signal-to-quantization-noise ratio over the calibration images.
    """

    tensor: str
    group: str  # tensors of one group share a range
    observed_low: float
    observed_high: float
    floor: float | None  # the analytic lower bound, where the tensor has one
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
    reason: str  # why it stays float
    reads: tuple[str, ...]  # quantized activations
    executed: Mapping[Precision, str]


@dataclass(frozen=True, slots=True)
class BlockReport:
    """Neighbouring layers, and the SQNR of the outputs when these layers alone are quantized.

    `freed` is true for a block of one layer that stays float.
    """

    layers: tuple[str, ...]
    sqnr_db: float
    freed: bool


@dataclass(frozen=True, slots=True)
class SensitivityReport:
    """The search for the layers that stay float; SQNR is that of the detector's outputs.

    `blocks` is a partition of the layers, the most sensitive first.
    """

    wanted_db: float
    all_quantized_db: float
    reached_db: float
    executions: int
    blocks: tuple[BlockReport, ...]


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """Each variant against fp32; `held_out`: on images that were not calibrated on."""

    held_out: bool
    with_fp32: Mapping[str, Agreement]


@dataclass(frozen=True, slots=True)
class GateResultReport:
    """How far a variant falls behind fp32 in `measure`, and how far it may."""

    measure: Measure
    drop: float
    limit: float
    accepted: bool


@dataclass(frozen=True, slots=True)
class GateReport:
    """The accuracy gate; `ap` is each variant's, where annotated images were given."""

    verdicts: Mapping[str, GateResultReport]
    ap: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Int8Convolutions:
    planned: int
    executed: int  # of the planned ones


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
    bytes: Mapping[Precision, int]
    default: str  # the variant that requests without `variant` use
    ms: Mapping[Precision, float]  # median of one inference, the variants timed in alternation
    seconds: Mapping[str, float]  # of each stage of the build
    versions: Mapping[str, str]
    warnings: tuple[str, ...]
    layers: tuple[LayerReport, ...]
    engine_layers: Mapping[Precision, tuple[ExecutedLayer, ...]]  # where the runtime lists them
    tensors: tuple[TensorReport, ...]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"
