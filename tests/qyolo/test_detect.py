import numpy as np
from PIL import Image

from qyolo.detect import detect_images
from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.image import MAX_PIXELS, decode_image
from service.vision.postprocess import Query

LOW = Query(conf=0.05)


def test_boxes_are_those_of_the_detector(tiny_folder, photos):
    manifest = read_manifest(tiny_folder)
    paths = sorted(photos.iterdir())[:3]
    answers = list(detect_images(tiny_folder, paths, "fp32", LOW, None, 1))
    detector = Detector.load(tiny_folder, manifest, "fp32", 1)
    for path, answer in zip(paths, answers, strict=True):
        found = detector.detect(decode_image(path.read_bytes(), MAX_PIXELS), LOW)
        assert len(found) > 0
        assert answer.file == str(path)
        assert (answer.image.width, answer.image.height) == (80, 60)
        scores = [detection.score for detection in answer.detections]
        np.testing.assert_allclose(scores, found.scores, atol=1e-4)
        boxes = [detection.box for detection in answer.detections]
        np.testing.assert_allclose(boxes, found.xyxy, atol=0.01)
    detector.close()


def test_pictures_are_saved_with_their_boxes(tiny_folder, photos, tmp_path):
    save = tmp_path / "new" / "pictures"
    list(detect_images(tiny_folder, [photos / "photo01.png"], None, LOW, save, 1))
    drawn = np.asarray(Image.open(save / "photo01.jpg").convert("RGB"), int)
    plain = np.asarray(Image.open(photos / "photo01.png").convert("RGB"), int)
    assert drawn.shape == plain.shape
    assert (np.abs(drawn - plain) > 60).any()
