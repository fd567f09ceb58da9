"""The options of one build."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from quantizer.calibration.images import WantedSize
from quantizer.calibration.ranges import RangeRule
from service.engines.gpu import RTX_TARGETS
from service.engines.intel import OPENVINO_NAMES
from service.manifest import Runtime
from service.vision.heads import HeadName
from service.vision.input_size import InputSize
from service.vision.preprocess import PreprocessName

Device = Literal["auto", "cpu", "gpu", "intel-gpu", "intel-npu"]
Default = Literal["auto", "fp32", "bf16", "fp16", "fp8", "int8"]

STRICT: Final = ConfigDict(extra="forbid")
SIDES: Final = range(32, 4097)  # pixels that a side of the input may have


def _targets(values: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, in the order of RTX_TARGETS; a value may hold several, separated by commas."""
    named = {name.strip().lower() for value in values for name in value.split(",")}
    if unknown := sorted(named.difference(RTX_TARGETS)):
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(RTX_TARGETS)}")
    return tuple(name for name in RTX_TARGETS if name in named)


def _size(written: object) -> object:
    """An InputSize for a side or WIDTHxHEIGHT; None and "auto" stay."""
    if written is None or written == "auto":
        return written
    try:
        size = InputSize.of(written)
    except ValueError as exc:
        raise PydanticCustomError("size", "{reason}", {"reason": str(exc)}) from exc
    if not (size.width in SIDES and size.height in SIDES):
        bounds = {"least": SIDES[0], "most": SIDES[-1]}
        raise PydanticCustomError("size", "a side has {least} to {most} pixels", bounds)
    return size


Size = Annotated[WantedSize, BeforeValidator(_size)]


@dataclass(frozen=True, config=STRICT)
class AnnotatedDataset:
    """Annotated images on which each variant's AP is measured."""

    images: Path = Field(description="folder of the annotated images")
    annotations: Path = Field(description="their annotations, as COCO JSON")


@dataclass(frozen=True, config=STRICT)
class BuildConfig:
    """The options of one build; where a field is None, the build decides.

    The command line makes its options from these fields. Raises pydantic.ValidationError.
    """

    model: Path = Field(description="float YOLO detector, an ONNX file")
    calibration: Path = Field(
        description="folder of about 100 images like those that the detector will see; default: "
        "the images that come with qyolo"
    )
    size: Size = Field(
        default=None,
        description="input size in pixels, WIDTHxHEIGHT or one side of a square; auto: of the "
        "calibration images' shape, with 640 pixels on the longer side; default: 640, or the "
        "model's own where it works at no other",
    )
    ranges: RangeRule = Field(
        default="uh", description="rule that chooses activation ranges; uh is Q-YOLO's"
    )
    symmetric: bool = Field(
        default=False, description="symmetric int8 activations instead of uint8"
    )
    bias_correction: bool = Field(
        default=True,
        description="correct each bias by the shift of its channel's mean that rounding the "
        "weights causes",
    )
    adaptive_rounding: bool = Field(
        default=True,
        description="round weights so that the outputs of their convolution change least, "
        "not each to nearest; needs the correction of biases",
    )
    equalisation: bool = Field(
        default=True,
        description="multiply the channels of a tensor whose scale a few of them decide, and "
        "divide the weights that read it",
    )
    range_refinement: bool = Field(
        default=True,
        description="before layers stay float, try other upper bounds for the ranges that cost "
        "most detections; not for large models",
    )
    head: HeadName | None = Field(
        default=None, description="output layout, where it is not recognised"
    )
    preprocess: PreprocessName | None = Field(
        default=None,
        description="how images are prepared; yolo: RGB 0..1, padded around; yolox: BGR 0..255, "
        "padded bottom right",
    )
    classes: Path | None = Field(default=None, description="file with one class name on each line")
    keep_float: tuple[str, ...] = Field(
        default=(),
        description="layers to keep float, as a shell pattern of their names; repeatable",
        json_schema_extra={"metavar": "PATTERN"},
    )
    min_sqnr: float | None = Field(
        default=None,
        ge=0,
        le=120,
        description="signal-to-quantization-noise ratio that the detector's outputs must keep: the "
        "layers that lower it most for the time they save stay float; 0 quantizes every layer; "
        "default: what the detections need",
        json_schema_extra={"metavar": "DB"},
    )
    max_drop: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="how far int8 may fall behind fp32 and still be the default: in agreement on "
        "held-out images (0.15 unless set), or in AP where annotations are given (0.01)",
    )
    annotated: AnnotatedDataset | None = None
    default: Default = Field(
        default="auto",
        description="variant that answers requests without `variant`; auto: the fastest that the "
        "accuracy gate accepts",
    )
    device: Device = Field(
        default="auto",
        description="device to build for; auto: the NVIDIA GPU if it can be used, else the "
        "processor: `qyolo doctor` shows which and why. intel-gpu and intel-npu are tried beside "
        "the processor",
        json_schema_extra={"env": "QYOLO_DEVICE"},
    )
    openvino_device: str | None = Field(
        default=None,
        pattern=r"^[A-Z]+(\.\d+)?(:[A-Z0-9.,()-]+)?$",
        description="for experts: the device that is tried beside the processor, as OpenVINO "
        "writes it, for example GPU.1 or HETERO:GPU,CPU",
        json_schema_extra={"metavar": "NAME", "env": "QYOLO_OPENVINO_DEVICE"},
    )
    runtime: Runtime | None = Field(
        default=None,
        description="engine; default: the first that works here of TensorRT, TensorRT for RTX, "
        "ONNX Runtime on CUDA, OpenVINO, ONNX Runtime",
    )
    target: Annotated[tuple[str, ...], AfterValidator(_targets)] = Field(
        default=(),
        description="compute capability of a GPU that is elsewhere, as sm89; several with commas. "
        "The build needs no GPU, and that GPU's first start decides which variant is the default",
        json_schema_extra={"metavar": "SM", "env": "QYOLO_TARGET"},
    )
    threads: int = Field(default=0, ge=0, description="threads of the build; 0: the CPU quota")
    workspace_mib: int | None = Field(
        default=None,
        ge=1,
        description="GPU memory in which TensorRT may try kernels; default: all",
        json_schema_extra={"option": "workspace", "metavar": "MIB"},
    )
    timing_caches: Path | None = Field(
        default=None, description="folder in which TensorRT keeps the times of kernels"
    )

    @property
    def accelerator(self) -> str | None:
        """OpenVINO's name of the device that is tried beside the processor."""
        if self.openvino_device is not None or self.device not in OPENVINO_NAMES:
            return self.openvino_device
        return OPENVINO_NAMES[self.device]
