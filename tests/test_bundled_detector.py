"""The accuracy of the bundled detector, and of symmetric int8, on real photos."""

import json
import re

import pytest

from quantizer.config import AnnotatedDataset
from quantizer.evaluation.accuracy import Accuracy, evaluate, evaluate_detectors
from service.inference.detector import Detector
from service.manifest import read_manifest
from tests.qyolo.commands import qyolo
from tests.shared import COCO_CALIB, COCO_VAL, COCO_VAL_JSON, YOLOV5N, needs_shared
from zoo import bundle

pytestmark = needs_shared


def build(*arguments: object) -> None:
    ran = qyolo("build", *arguments)
    assert ran.code == 0, ran.err


@pytest.fixture(scope="module")
def on_bundled_images(tmp_path_factory) -> dict[str, Accuracy]:
    """The accuracy of each variant, calibrated on the bundled images."""
    folder = tmp_path_factory.mktemp("model")
    build("--out", folder)
    return dict(evaluate(folder, COCO_VAL, COCO_VAL_JSON, 0, lambda _: None).variants)


@pytest.fixture(scope="module")
def int8_on_photos(tmp_path_factory) -> Accuracy:
    """The accuracy of int8, calibrated on photos; fp32 does not depend on them."""
    folder = tmp_path_factory.mktemp("model")
    build("--calibration", COCO_CALIB, "--out", folder)
    manifest = read_manifest(folder)
    annotated = AnnotatedDataset(COCO_VAL, COCO_VAL_JSON)
    detectors = {"int8": Detector.load(folder, manifest, "int8")}
    found = evaluate_detectors(detectors, manifest, annotated, lambda _: None)
    detectors["int8"].close()
    return found.variants["int8"]


def test_the_bundled_detector_has_the_accuracy_on_its_card(on_bundled_images):
    card = re.search(r"\| fp32 \| ([\d.]+) \| ([\d.]+) \|", bundle.CARD.read_text())
    fp32 = on_bundled_images["fp32"]
    assert card is not None
    assert fp32.ap == pytest.approx(float(card[1]), abs=0.003)
    assert fp32.ap50 == pytest.approx(float(card[2]), abs=0.005)
    assert fp32.classes["person"].ap50 >= 0.50


def test_int8_keeps_the_accuracy(on_bundled_images, int8_on_photos):
    for int8 in (on_bundled_images["int8"], int8_on_photos):
        assert int8.ap >= on_bundled_images["fp32"].ap - 0.010


def test_the_bundled_images_calibrate_like_photos(on_bundled_images, int8_on_photos):
    assert on_bundled_images["int8"].ap >= int8_on_photos.ap - 0.005


def test_symmetric_int8_agrees_with_fp32(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "model"
    photos.mkdir()
    for path in sorted(COCO_CALIB.iterdir())[:24]:
        (photos / path.name).symlink_to(path)
    options = ("--symmetric", "--min-sqnr", "0")  # every layer in int8
    build(YOLOV5N, "--calibration", photos, *options, "--out", out)
    report = json.loads((out / "report.json").read_text())
    assert report["agreement"]["with_fp32"]["int8"]["matched"] > 0.85
    assert read_manifest(out).rejected == {}
