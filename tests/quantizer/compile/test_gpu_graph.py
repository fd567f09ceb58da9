"""The graph that a GPU runs, executed by ONNX Runtime: its boxes are those of the whole graph."""

import numpy as np
import onnx
import pytest

from quantizer.compile.builder import Candidate
from quantizer.evaluation.detectors import GraphEngine
from quantizer.model.top_anchors import top_layout
from quantizer.qdq.emulation import in_float16
from service.vision.detections import Detections
from service.vision.heads import HEADS, detections_of
from service.vision.maps import MapLayout
from service.vision.postprocess import Decoder
from tests.quantizer.graphs import candidates_of
from tests.tiny_models import INPUT, SIZE, TINY

BYTES = np.random.default_rng(5).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
CONF = 0.05


def boxes(
    name: str, candidate: Candidate, graph: onnx.ModelProto, layout: MapLayout | None
) -> Detections:
    """Before NMS, best first; each float16 value is rounded as on a GPU."""
    canvas = BYTES % 2 if name == "yolox" else BYTES  # with brighter pixels its boxes overflow
    outputs = GraphEngine(in_float16(graph), 1, candidate.preprocess).infer(canvas)
    decoder = Decoder.of(HEADS["yolov5" if name == "relu" else name], INPUT, layout)
    return detections_of(decoder.decode(outputs, CONF), CONF, multi_label=False)


@pytest.mark.parametrize("name", TINY)
def test_it_has_the_boxes_of_the_whole_graph_in_the_same_types(name):
    candidates = candidates_of(name)
    for variant in ("fp32", "fp16", "int8", "int8-f16"):
        candidate = candidates[variant]
        layout = None if candidate.maps is None else top_layout(candidate.maps.layout)
        ours = boxes(name, candidate, candidate.gpu_graph(), layout)
        expected = boxes(name, candidate, candidate.typed_graph(), None)
        assert len(ours) == len(expected) > 0
        np.testing.assert_allclose(ours.scores, expected.scores, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ours.xyxy, expected.xyxy, atol=1e-3)
        np.testing.assert_array_equal(ours.class_ids, expected.class_ids)
