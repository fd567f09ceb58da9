"""The bundled detector: its demo, `up` without arguments, and its accuracy on real photos."""

import json
import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from bench.quantization.tensorrt_graph import quantized
from quantizer.compile.builder import Candidate
from quantizer.compile.load import load_builder
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.evaluation.accuracy import Accuracy, evaluate_detectors
from quantizer.evaluation.detectors import open_variants
from service.inference.detector import Detector
from service.manifest import read_manifest
from tests.qyolo.commands import Ran, inline, running
from tests.shared import COCO_CALIB, COCO_VAL, COCO_VAL_JSON, needs_shared
from zoo import bundle

PHOTOS = sorted(bundle.SAMPLES.glob("*.jpg"))
THREADS = 1  # a second one would wait for the core of another worker


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


def calibrated_on_photos(built: Path, folder: Path) -> Detector:
    """int8 with the same layers in float, calibrated on photos.

    No search finds them again, and fp32 is not compiled again: it does not depend on the images.
    """
    layers = json.loads((built / "report.json").read_text())["layers"]
    floats = tuple(each["layer"] for each in layers if each["planned"] == "float")
    config = BuildConfig(bundle.model(), COCO_CALIB, keep_float=floats, min_sqnr=0, threads=THREADS)
    manifest = read_manifest(built)
    builder = load_builder(manifest.variants["int8"].runtime, THREADS)
    detector, graph = quantized(config, lambda _: None, builder)
    int8 = Candidate("int8", graph, preprocess=detector.preprocess, maps=detector.maps)
    variants = {"int8": builder.build(int8, folder).variant}
    manifest = manifest.model_copy(update={"variants": variants})
    return Detector.load(folder, manifest, "int8", THREADS)


@pytest.fixture(scope="module")
def accuracy(built, tmp_path_factory) -> Mapping[str, Accuracy]:
    """Of fp32 and of int8 calibrated on the bundled images, and of int8 calibrated on photos.

    fp32 does not depend on the images.
    """
    manifest = read_manifest(built)
    with open_variants(built, manifest, THREADS) as variants:
        photos = calibrated_on_photos(built, tmp_path_factory.mktemp("model"))
        detectors = {name: variants[name] for name in ("fp32", "int8")} | {"photos": photos}
        annotated = AnnotatedDataset(COCO_VAL, COCO_VAL_JSON)
        with closing(photos):
            return evaluate_detectors(detectors, manifest, annotated, lambda _: None).variants


@needs_shared
def test_the_bundled_detector_has_the_accuracy_on_its_card(accuracy):
    card = re.search(r"\| fp32 \| ([\d.]+) \| ([\d.]+) \|", bundle.CARD.read_text())
    fp32 = accuracy["fp32"]
    assert card is not None
    assert fp32.ap == pytest.approx(float(card[1]), abs=0.003)
    assert fp32.ap50 == pytest.approx(float(card[2]), abs=0.005)
    assert fp32.classes["person"].ap50 >= 0.50


@needs_shared
def test_int8_keeps_the_accuracy(accuracy):
    for name in ("int8", "photos"):
        assert accuracy[name].ap >= accuracy["fp32"].ap - 0.010


@needs_shared
def test_the_bundled_images_calibrate_like_photos(accuracy):
    assert accuracy["int8"].ap >= accuracy["photos"].ap - 0.005
