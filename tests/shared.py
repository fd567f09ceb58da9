"""The real models and photos, for the tests that need them."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("QYOLO_SHARED", Path(__file__).parents[2] / "shared"))
YOLOV5N = SHARED / "models" / "yolov5n.onnx"
YOLOX_NANO = SHARED / "models" / "yolox_nano.onnx"
COCO_CALIB = SHARED / "data" / "coco_calib"
COCO_CALIB_JSON = SHARED / "data" / "coco_calib.json"
COCO_VAL = SHARED / "data" / "coco_val"
COCO_VAL_JSON = SHARED / "data" / "coco_val.json"

needs_shared = pytest.mark.skipif(
    not all(path.exists() for path in (YOLOV5N, YOLOX_NANO, COCO_CALIB, COCO_VAL, COCO_VAL_JSON)),
    reason=f"the real models and photos are not in {SHARED}: set QYOLO_SHARED to their folder",
)

_INT8_FLAGS = {"avx512_vnni", "avx_vnni", "asimddp", "i8mm"}
_CPUINFO = Path("/proc/cpuinfo")
needs_int8 = pytest.mark.skipif(
    not _INT8_FLAGS & set(_CPUINFO.read_text().split() if _CPUINFO.exists() else ()),
    reason="this processor has no int8 dot products, so what runs in int8 is the runtime's choice",
)
