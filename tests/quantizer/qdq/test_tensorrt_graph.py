"""The graph for TensorRT, executed as written, keeps the accuracy."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from bench.quantization import tensorrt_graph as bench
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.evaluation.detectors import describe
from quantizer.model.execution import open_session
from quantizer.qdq.float16 import to_float16
from tests.shared import COCO_CALIB, COCO_VAL, COCO_VAL_JSON, YOLOV5N, YOLOX_NANO, needs_shared
from tests.tiny_models import Sketch

CALIBRATING = 36  # photos: fewer than a user should take, and enough to keep the accuracy
# dB, below the default: a shorter search, and fewer float layers to keep the same accuracy.
MIN_SQNR = (17.0, 15.0)


def int8_ap(path: Path, min_sqnr: float, folder: Path) -> float:
    """On one thread, calibrated on the first photos."""
    photos = folder / path.stem
    photos.mkdir()
    for photo in sorted(COCO_CALIB.iterdir())[:CALIBRATING]:
        (photos / photo.name).symlink_to(photo)
    config = BuildConfig(path, photos, min_sqnr=min_sqnr, threads=1)
    detector, int8 = bench.quantized(config, lambda _: None)
    graphs = {"int8": bench.in_float16(to_float16(int8))}
    annotated, manifest = AnnotatedDataset(COCO_VAL, COCO_VAL_JSON), describe(path, detector)
    return bench.accuracy(graphs, manifest, annotated, lambda _: None, 1).variants["int8"].ap


@needs_shared
def test_symmetric_int8_with_float16_regions_keeps_the_accuracy(tmp_path):
    """Both models at the same time: two cores are faster with one model each than on one."""
    limits = {YOLOV5N: 0.3253 - 0.005, YOLOX_NANO: 0.3465 - 0.010}  # fp32's AP less a loss
    with ProcessPoolExecutor(len(limits), get_context("spawn")) as pool:
        aps = list(pool.map(int8_ap, limits, MIN_SQNR, [tmp_path] * len(limits)))
    for path, ap in zip(limits, aps, strict=True):
        assert ap >= limits[path], path.stem


def test_the_emulation_rounds_to_float16_after_each_operator():
    s = Sketch((1, 3, 8, 8), opset=19)
    x = s.silu("x", s.node("Cast", "half", "images", to=TensorProto.FLOAT16))
    model = s.model(s.node("Cast", "float", x, to=TensorProto.FLOAT), rank=4)
    typed = onnx.shape_inference.infer_shapes(model)
    values = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (found,) = open_session(bench.in_float16(typed), 1).run(None, {"images": values})
    half = values.astype(np.float16)
    gate = (1 / (1 + np.exp(-half.astype(np.float32)))).astype(np.float16)
    np.testing.assert_allclose(found, half * gate, rtol=2**-10, atol=1e-7)
    assert (found == found.astype(np.float16)).all()
