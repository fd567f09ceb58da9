"""Two official detectors and real photos: from the float model to boxes over HTTP."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from quantizer.evaluation.accuracy import Evaluation, evaluate
from service.engines.cpu import read_cpu
from service.manifest import read_manifest
from tests.qyolo.commands import inline, running
from tests.shared import (
    COCO_CALIB,
    COCO_CALIB_JSON,
    COCO_VAL,
    COCO_VAL_JSON,
    YOLOV5N,
    YOLOX_NANO,
    needs_int8,
    needs_shared,
)

pytestmark = needs_shared

# Measured on these 85 images with OpenVINO and pycocotools, without this code.
FLOAT_AP = {"yolov5n": 0.324, "yolox_nano": 0.346}
MODELS = {"yolov5n": YOLOV5N, "yolox_nano": YOLOX_NANO}


@dataclass(frozen=True)
class Made:
    """One real model: its folder, its report.json and its accuracy, also on the training images
    that calibrated it, whose annotations no build reads."""

    folder: Path
    report: dict
    accuracy: Evaluation
    on_calibration: Evaluation


@pytest.fixture(scope="module", params=MODELS)
def made(request, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    ran = inline("build", MODELS[request.param], "--calibration", COCO_CALIB, QYOLO_CACHE_DIR=cache)
    assert ran.code == 0, ran.err
    folder = Path(ran.out.strip())
    report = json.loads((folder / "report.json").read_text())
    # On one thread: a second one would wait for the core of another worker.
    accuracy = evaluate(folder, COCO_VAL, COCO_VAL_JSON, 1, lambda _: None)
    on_calibration = evaluate(folder, COCO_CALIB, COCO_CALIB_JSON, 1, lambda _: None)
    return Made(folder, report, accuracy, on_calibration)


def test_fp32_has_the_accuracy_of_the_float_model(made):
    expected = FLOAT_AP[made.accuracy.model]
    assert made.accuracy.variants["fp32"].ap == pytest.approx(expected, abs=0.003)
    assert made.accuracy.images == 85


def test_int8_and_the_lower_float_type_keep_the_accuracy(made):
    lost = {"yolov5n": 0.003, "yolox_nano": 0.005}[made.accuracy.model]
    limits = {"fp32": 0, "int8": lost, "bf16": 0.01, "fp16": 0.01}
    assert {"fp32", "int8"} <= made.accuracy.variants.keys()
    # The mean over both sets: builds of equal loss differ by up to 0.004 AP on the 85 images alone.
    for name in made.accuracy.variants:
        drops = [
            each.variants["fp32"].ap - each.variants[name].ap
            for each in (made.accuracy, made.on_calibration)
        ]
        assert sum(drops) / 2 <= limits[name], (name, drops)


def test_the_default_is_the_fastest_of_the_accepted(made):
    manifest = read_manifest(made.folder)
    assert manifest.rejected == {}
    assert manifest.default == min(made.report["ms"], key=made.report["ms"].get)


@needs_int8
def test_int8_dot_products_make_another_variant_than_fp32_the_default(made):
    assert read_manifest(made.folder).default != "fp32"


def test_few_layers_stay_float_to_keep_the_detections(made):
    found = made.report["sensitivity"]
    first, last = found["frontier"][0], found["frontier"][-1]
    assert first["kept_float"] == []
    assert found["max_loss"] < first["loss"]
    # More than max_loss, the goal, where a layer that costs more than it is worth stays int8.
    assert last["loss"] < 0.08
    assert found["reached_db"] > found["all_quantized_db"]
    assert found["reached_db"] >= 19
    layers = made.report["layers"]
    if not read_cpu().int8_saturates:  # there weights have 7 bits, and more layers are sensitive
        assert sum(layer["planned"] == "float" for layer in layers) < len(layers) / 3


def test_int8_agrees_with_fp32_on_most_boxes(made):
    agreed = made.accuracy.agreement_with_fp32["int8"]
    assert agreed.matched > 0.9
    assert agreed.mean_iou > 0.9
    assert agreed.mean_score_difference < 0.05


@needs_int8
def test_every_planned_convolution_executes_in_int8(made):
    counts = made.report["int8_convolutions"]
    assert counts["executed"] == counts["planned"] > 0


def test_the_build_has_no_warnings_and_represents_the_tensors_well(made):
    assert made.report["calibration"]["images"] == 80
    assert made.report["calibration"]["held_out"] == 16
    assert made.report["agreement"]["held_out"] is True
    assert all("do not run in int8" in text for text in made.report["warnings"])
    for tensor in made.report["tensors"]:
        assert tensor["clipped"] < 0.01, tensor
        assert tensor["sqnr_db"] > 20, tensor


@needs_int8
def test_the_report_and_its_page_tell_which_bounds_were_refined(made):
    factors = [tensor["factor"] for tensor in made.report["tensors"]]
    refined = [factor for factor in factors if factor != 1]
    # YOLOX-nano keeps most of the layers float that read such a range.
    if made.accuracy.model == "yolov5n":
        assert refined
    assert all(0.5 <= factor <= 1.7 for factor in refined)
    page = (made.folder / "report.html").read_text("utf-8")
    assert page.count("upper bound refined") == len(refined)


def test_boxes_over_http_are_the_boxes_of_the_command_line(made):
    photos = sorted(COCO_VAL.iterdir())[::2]
    ran = inline("detect", made.folder, *photos)
    assert ran.code == 0, ran.err
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert sum(len(line["detections"]) for line in lines) > 200
    with running("serve", made.folder) as server:
        server.wait_until_ready()
        for photo, line in zip(photos, lines, strict=True):
            answer = server.detect(photo.read_bytes())
            assert answer["detections"] == line["detections"], photo.name
            assert answer["image"] == line["image"]
