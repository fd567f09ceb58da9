"""Where the real models and photos lie, for the tests that need them."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("QYOLO_SHARED", Path(__file__).parents[2] / "shared"))
YOLOV5N = SHARED / "models" / "yolov5n.onnx"
YOLOX_NANO = SHARED / "models" / "yolox_nano.onnx"
COCO_CALIB = SHARED / "data" / "coco_calib"
COCO_VAL = SHARED / "data" / "coco_val"
COCO_VAL_JSON = SHARED / "data" / "coco_val.json"

needs_shared = pytest.mark.skipif(
    not all(path.exists() for path in (YOLOV5N, YOLOX_NANO, COCO_CALIB, COCO_VAL, COCO_VAL_JSON)),
    reason=f"the real models and photos are not in {SHARED}: set QYOLO_SHARED to their folder",
)
