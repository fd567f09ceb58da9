import numpy as np
import pytest
from PIL import Image

from qyolo.detect import ImageFailure, detect_images
from service.errors import BadModelFolder, VariantNotFound
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


def test_the_default_variant_is_that_of_the_folder(tiny_folder, photos):
    (answer,) = detect_images(tiny_folder, [photos / "photo00.jpg"], None, LOW, None, 1)
    assert answer.variant == "int8"


def test_an_image_that_cannot_be_read_does_not_end_the_run(tiny_folder, photos, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    paths = [photos / "photo00.jpg", tmp_path / "bad.jpg", tmp_path / "absent.jpg"]
    answers = list(detect_images(tiny_folder, [*paths, paths[0]], None, LOW, None, 1))
    failures = [isinstance(answer, ImageFailure) for answer in answers]
    assert failures == [False, True, True, False]


def test_errors_come_before_the_first_image(tiny_folder, tmp_path):
    with pytest.raises(VariantNotFound, match="int4"):
        next(detect_images(tiny_folder, [], "int4", LOW, None, 1))
    with pytest.raises(BadModelFolder):
        next(detect_images(tmp_path, [], None, LOW, None, 1))


def test_pictures_with_boxes_are_saved(tiny_folder, photos, tmp_path):
    save = tmp_path / "new" / "pictures"
    paths = [photos / "photo00.jpg", photos / "photo01.png"]
    list(detect_images(tiny_folder, paths, None, LOW, save, 1))
    assert sorted(path.name for path in save.iterdir()) == ["photo00.jpg", "photo01.jpg"]
    drawn = np.asarray(Image.open(save / "photo01.jpg").convert("RGB"), int)
    plain = np.asarray(Image.open(photos / "photo01.png").convert("RGB"), int)
    assert drawn.shape == plain.shape
    assert (np.abs(drawn - plain) > 60).any()
