"""The accuracy of the graph that TensorRT gets, on real models and photos, without a GPU."""

import pytest

from bench.quantization import tensorrt_graph
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.evaluation.detectors import describe
from quantizer.qdq.float16 import to_float16
from tests.shared import COCO_CALIB, COCO_VAL, COCO_VAL_JSON, YOLOV5N, YOLOX_NANO, needs_shared

pytestmark = needs_shared

PHOTOS = 24  # fewer than a user should take, and enough
THREADS = 1  # a second one would wait for the core of another worker


@pytest.mark.parametrize(
    ("model", "least"), [(YOLOV5N, 0.3253 - 0.005), (YOLOX_NANO, 0.3465 - 0.010)]
)
def test_symmetric_int8_with_float16_regions_keeps_the_accuracy(model, least, tmp_path):
    """It is executed as written, each float16 value rounded to float16."""
    for photo in sorted(COCO_CALIB.iterdir())[:PHOTOS]:
        (tmp_path / photo.name).symlink_to(photo)
    config = BuildConfig(model, tmp_path, threads=THREADS)
    detector, int8 = tensorrt_graph.quantized(config, lambda _: None)
    graphs = {"int8": tensorrt_graph.in_float16(to_float16(int8))}
    manifest = describe(model, detector)
    annotated = AnnotatedDataset(COCO_VAL, COCO_VAL_JSON)
    found = tensorrt_graph.accuracy(graphs, manifest, annotated, lambda _: None, THREADS)
    assert found.variants["int8"].ap >= least
