"""bytes -> decode_image -> prepare -> Engine.infer -> decode -> NMS -> boxes in source pixels."""

import os
import sys

# Before a runtime is imported, which would tell its maker: what a box does is its owner's business.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # then OpenVINO has none
