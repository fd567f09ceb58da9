"""The bundled detector: its demo, `up` without arguments, and its accuracy on real photos."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from quantizer.config import AnnotatedDataset
from quantizer.evaluation.accuracy import Accuracy, evaluate, evaluate_detectors
from service.inference.detector import Detector
from service.manifest import read_manifest
from tests.qyolo.commands import Ran, inline, qyolo, running
from tests.shared import COCO_CALIB, COCO_VAL, COCO_VAL_JSON, needs_shared
from zoo import bundle

PHOTOS = sorted(bundle.SAMPLES.glob("*.jpg"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def demo(cache, tmp_path_factory) -> tuple[Ran, Path]:
    folder = tmp_path_factory.mktemp("demo")
    return inline("detect", "--demo", cwd=folder, QYOLO_CACHE_DIR=cache), folder


@pytest.fixture(scope="module")
def built(demo, cache) -> Path:
    """The model folder of the demo, calibrated on the bundled images."""
    (entry,) = (path for path in cache.iterdir() if path.is_dir())
    return entry


def test_the_demo_finds_the_person_and_the_sign_and_saves_the_photos_with_boxes(demo):
    ran, folder = demo
    assert ran.code == 0, ran.err
    seen = {
        Path(answer["file"]).name: {box["class_name"] for box in answer["detections"]}
        for answer in map(json.loads, ran.out.splitlines())
    }
    assert seen.keys() == {photo.name for photo in PHOTOS}
    assert "person" in seen["astronaut.jpg"]
    assert "stop sign" in seen["street.jpg"]
    assert "pictures with boxes are in qyolo-demo" in ran.err
    for photo in PHOTOS:
        with Image.open(photo) as before, Image.open(folder / "qyolo-demo" / photo.name) as after:
            assert after.size == before.size


def test_up_without_arguments_serves_what_the_demo_built(built, cache):
    inode = built.stat().st_ino
    with running("up", QYOLO_CACHE_DIR=cache) as server:
        server.wait_until_ready()
        answer = server.detect((bundle.SAMPLES / "astronaut.jpg").read_bytes())
        assert answer["model"] == "qyolo-nano"
        assert answer["variant"] == read_manifest(built).default
        assert "person" in {box["class_name"] for box in answer["detections"]}
        assert server.stop() == 0
    assert built.stat().st_ino == inode
    assert read_manifest(built).name == "qyolo-nano"
    assert "calibrating on the bundled images" in server.err


@pytest.fixture(scope="module")
def on_bundled_images(built) -> dict[str, Accuracy]:
    """The accuracy of each variant, calibrated on the bundled images."""
    return dict(evaluate(built, COCO_VAL, COCO_VAL_JSON, 0, lambda _: None).variants)


@pytest.fixture(scope="module")
def int8_on_photos(built, tmp_path_factory) -> Accuracy:
    """The accuracy of int8, with the same layers in float, calibrated on photos.

    fp32 does not depend on the images.
    """
    folder = tmp_path_factory.mktemp("model")
    layers = json.loads((built / "report.json").read_text())["layers"]
    floats = [("--keep-float", each["layer"]) for each in layers if each["planned"] == "float"]
    options = (*(part for pair in floats for part in pair), "--min-sqnr", 0)  # without a search
    ran = qyolo("build", "--calibration", COCO_CALIB, *options, "--out", folder)
    assert ran.code == 0, ran.err
    manifest = read_manifest(folder)
    annotated = AnnotatedDataset(COCO_VAL, COCO_VAL_JSON)
    detectors = {"int8": Detector.load(folder, manifest, "int8")}
    found = evaluate_detectors(detectors, manifest, annotated, lambda _: None)
    detectors["int8"].close()
    return found.variants["int8"]


@needs_shared
def test_the_bundled_detector_has_the_accuracy_on_its_card(on_bundled_images):
    card = re.search(r"\| fp32 \| ([\d.]+) \| ([\d.]+) \|", bundle.CARD.read_text())
    fp32 = on_bundled_images["fp32"]
    assert card is not None
    assert fp32.ap == pytest.approx(float(card[1]), abs=0.003)
    assert fp32.ap50 == pytest.approx(float(card[2]), abs=0.005)
    assert fp32.classes["person"].ap50 >= 0.50


@needs_shared
def test_int8_keeps_the_accuracy(on_bundled_images, int8_on_photos):
    for int8 in (on_bundled_images["int8"], int8_on_photos):
        assert int8.ap >= on_bundled_images["fp32"].ap - 0.010


@needs_shared
def test_the_bundled_images_calibrate_like_photos(on_bundled_images, int8_on_photos):
    assert on_bundled_images["int8"].ap >= int8_on_photos.ap - 0.005
