"""One build's choices."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from quantizer.calibration.ranges import RangeRule
from service.manifest import Runtime
from service.vision.heads import HeadName
from service.vision.preprocess import PreprocessName

# dB of the detector's outputs that int8 is to keep by leaving layers float. YOLOv5n comes to 25 of
# them and YOLOX-nano to 23, and their AP is within what 85 images can tell.
MIN_SQNR: Final = 25.0

Device = Literal["auto", "cpu", "gpu"]
# The variant that answers where a request names none; auto is the fastest that the guard accepts.
Default = Literal["auto", "fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True, slots=True)
class AnnotatedDataset:
    """Annotated images to judge int8 by: COCO JSON."""

    images: Path
    annotations: Path


@dataclass(frozen=True, slots=True)
class BuildConfig:
    """What to build from what; None lets the build find out."""

    model: Path
    calibration: Path
    size: int = 640
    ranges: RangeRule = "uh"
    symmetric: bool = False
    bias_correction: bool = True
    head: HeadName | None = None
    preprocess: PreprocessName | None = None
    classes: Path | None = None
    keep_float: tuple[str, ...] = ()
    min_sqnr: float = MIN_SQNR
    max_drop: float | None = None  # behind fp32; None: the guard's own limit
    truth: AnnotatedDataset | None = None
    default: Default = "auto"
    device: Device = "auto"
    runtime: Runtime | None = None
    threads: int = 0  # of the build itself; 0 takes what this process may use
    workspace_mib: int | None = None  # of GPU memory that TensorRT may try kernels in; None: all
    timing_caches: Path | None = None  # folder where it keeps how long they took
