import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.vision.detections import Detections
from service.vision.postprocess import non_max_suppression

# Areas in whole pixels are exact: both implementations compare the same numbers.
edges = st.integers(0, 60)
rows = st.lists(st.tuples(edges, edges, edges, edges, st.integers(0, 2)), max_size=25)
ious = st.sampled_from([0.1, 0.45, 0.5, 0.7, 1.0])


def detections(boxes: list[tuple]) -> Detections:
    """Best first, as NMS expects them."""
    xyxy = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, _ in boxes]
    return Detections(
        np.array(xyxy, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.1, len(boxes), dtype=np.float32),
        np.array([row[4] for row in boxes], np.int64),
    )


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def naive(found: Detections, iou: float, max_det: int) -> list[int]:
    boxes, classes = found.xyxy.tolist(), found.class_ids.tolist()
    kept: list[int] = []
    for i in range(len(boxes)):
        rivals = (j for j in kept if classes[j] == classes[i])
        if all(overlap(boxes[i], boxes[j]) <= iou for j in rivals):
            kept.append(i)
    return kept[:max_det]


@given(rows, ious, st.integers(1, 30))
def test_nms_keeps_the_boxes_of_a_plain_loop(boxes, iou, max_det):
    found = detections(boxes)
    kept = non_max_suppression(found, iou, max_det)
    index = naive(found, iou, max_det)
    np.testing.assert_array_equal(kept.xyxy, found.xyxy[index])
    np.testing.assert_array_equal(kept.scores, found.scores[index])
    np.testing.assert_array_equal(kept.class_ids, found.class_ids[index])


def test_classes_stay_apart_at_negative_coordinates():
    xyxy = np.array([[-500, -500, -400, -400], [-500, -500, -400, -400]], np.float32)
    found = Detections(xyxy, np.array([0.9, 0.8], np.float32), np.array([0, 1]))
    assert len(non_max_suppression(found, 0.5, 300)) == 2
