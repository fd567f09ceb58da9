"""Whole builds of tiny models. A build is made once for each set of options, and shared."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from quantizer.build import build
from quantizer.compile.candidates import LOW_NAMES
from quantizer.compile.load import load_builder
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.errors import BadOption, NoCalibrationImages
from quantizer.report.data import Report
from quantizer.versions import sha256_of, versions
from service.inference.detector import Detector
from service.manifest import Manifest, read_manifest
from service.progress import Progress
from service.vision.image import Photo
from service.vision.postprocess import Query
from tests.tiny_models import CELLS, CLASSES, SIZE, TINY, yolov5


@dataclass(frozen=True)
class Built:
    folder: Path
    report: Report
    progress: list[Progress]
    manifest: Manifest
    qdq: bytes

    def warned(self, *words: str) -> bool:
        """Whether one warning holds all the words."""
        return any(all(word in text for word in words) for text in self.report.warnings)


@pytest.fixture(scope="module")
def make(tmp_path_factory, photos) -> Callable[..., Built]:
    """Builds a tiny model. ONNX Runtime is the default because it compiles fastest."""

    def run(
        model: str | onnx.ModelProto = "yolov5",
        images: Path = photos,
        runtime: str = "onnxruntime",
        **options: object,
    ) -> Built:
        home = tmp_path_factory.mktemp("build")
        path, folder, progress = home / "yolov5.onnx", home / "built", []
        folder.mkdir()
        onnx.save(TINY[model]() if isinstance(model, str) else model, path)
        config = BuildConfig(path, images, size=SIZE, threads=1, runtime=runtime, **options)
        report = build(config, folder, progress.append)
        qdq = (folder / "model.qdq.onnx").read_bytes()
        return Built(folder, report, progress, read_manifest(folder), qdq)

    return run


@pytest.fixture(scope="module")
def plain(make) -> Built:
    return make()


@pytest.fixture(scope="module")
def report(tiny_folder):
    """report.json of an OpenVINO build."""
    return json.loads((tiny_folder / "report.json").read_text())


DESCRIBED = {
    "name": "yolov5",
    "size": SIZE,
    "head": "yolov5",
    "preprocess": "yolo",
    "class_names": CLASSES,
    "input_name": "images",
    "output_name": "output.y",
    "output_shape": (1, 3 * CELLS, 5 + len(CLASSES)),
    "default": "int8",
    "rejected": {},
}

# ------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("name", TINY)
def test_every_family_is_built_into_a_folder_whose_variants_detect(name, runtime, make):
    built = make(name, runtime=runtime)
    manifest, folder = built.manifest, built.folder
    low = load_builder(runtime, 1).low_float
    lower = [] if low is None else [LOW_NAMES[low]]
    assert set(manifest.variants) == {"fp32", "int8", *lower}
    assert set(folder.iterdir()) >= {folder / name for name in ("fp32", *lower)}
    assert {variant.runtime for variant in manifest.variants.values()} == {runtime}
    assert built.report.model.head == manifest.head
    grey = Photo.from_pixels(np.full((60, 80, 3), 128, np.uint8))
    for variant in manifest.variants:
        detector = Detector.load(folder, manifest, variant, 1)
        found = detector.detect(grey, Query(conf=0.01))
        detector.close()
        assert np.isfinite(found.xyxy).all()
        assert set(found.class_ids.tolist()) <= {0, 1, 2}


def test_the_manifest_describes_the_build(tiny_folder):
    manifest = read_manifest(tiny_folder)
    assert manifest.model_dump(include=DESCRIBED.keys()) == DESCRIBED
    assert manifest.versions == versions()
    assert manifest.source_sha256 == sha256_of(tiny_folder.parent / "yolov5.onnx")


def test_the_qdq_graph_in_the_folder_is_valid(tiny_folder, report):
    model = onnx.load(tiny_folder / "model.qdq.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == len(report["tensors"])


def test_two_builds_that_keep_the_same_layers_float_give_the_same_qdq_bytes(make, plain):
    """ONNX Runtime reports no times of layers, on which the choice would depend."""
    assert make().qdq == plain.qdq


def test_progress_counts_every_stage_to_its_end(plain):
    phases = list(dict.fromkeys(step.phase for step in plain.progress))
    assert phases == [
        *("read", "equalise", "calibrate", "round"),
        *("precision", "quantize", "compile", "time", "compare"),
    ]
    last = {step.phase: (step.done, step.total) for step in plain.progress}
    assert last["calibrate"] == (17, 17)
    assert last["compile"] in {(2, 2), (4, 4)}
    assert last["compare"] == (3, 3)


# ------------------------------------------------------------------------------- the report


def test_the_returned_report_is_the_written_one(plain):
    assert (plain.folder / "report.json").read_text() == plain.report.to_json()


def test_the_report_describes_the_model_and_the_options(report, tiny_folder):
    assert list(report)[:3] == ["model", "options", "calibration"]
    assert report["model"] == {
        "name": "yolov5",
        "sha256": read_manifest(tiny_folder).source_sha256,
        "head": "yolov5",
        "preprocess": "yolo",
        "size": SIZE,
        "width": SIZE,
        "height": SIZE,
        "classes": 3,
        "output": [1, 252, 8],
    }
    assert report["options"]["ranges"] == "uh"
    assert report["options"]["runtime"] == "openvino"
    assert report["versions"] == versions()


def test_the_report_describes_every_quantized_tensor(report):
    assert report["tensors"]
    for tensor in report["tensors"]:
        assert tensor["low"] <= 0 <= tensor["high"]
        assert tensor["scale"] > 0
        assert 0 <= tensor["clipped"] < 0.05
        assert 20 < tensor["sqnr_db"] < 80
        assert tensor["observed_low"] <= tensor["observed_high"]
    by_name = {tensor["tensor"]: tensor for tensor in report["tensors"]}
    assert by_name["stem.act.y"]["floor"] == pytest.approx(-0.2785)
    assert by_name["c3.m.add.y"]["floor"] == pytest.approx(-0.557)
    assert by_name["c3.m.add.y"]["group"] == "c3.cv2.act.y"
    assert by_name["images"]["scale"] == pytest.approx(1 / 255)


def test_the_report_describes_every_convolution(report):
    layers = {layer["layer"]: layer for layer in report["layers"]}
    assert len(layers) == 17
    assert layers["stem"]["planned"] == "int8"
    assert layers["stem"]["executed"]["fp32"] == "f32"
    floats = [layer for layer in layers.values() if layer["planned"] == "float"]
    assert all(layer["reason"] for layer in floats)
    assert {layer["executed"]["int8"] for layer in floats} <= {"f32"}
    counts = report["int8_convolutions"]
    executed = [layer["executed"]["int8"] for layer in layers.values()]
    assert counts["planned"] == len(layers) - len(floats)
    assert counts["executed"] == sum(kind in {"u8", "i8"} for kind in executed)


def test_the_report_counts_images_sizes_and_seconds(report, tiny_folder):
    calibration = dict(report["calibration"])
    assert calibration.pop("ms_per_image") > 0
    assert calibration == {"images": 17, "held_out": 3, "unreadable": []}
    variants = read_manifest(tiny_folder).variants
    assert set(report["bytes"]) == set(report["ms"]) == set(variants)
    for name, variant in variants.items():
        files = (tiny_folder / variant.model).parent.iterdir()
        assert report["bytes"][name] == sum(path.stat().st_size for path in files)
        assert 0 < report["ms"][name] < 1000
    steps = {"read", "calibrate", "precision", "quantize", "time", "compare"}
    assert steps | {"compile fp32", "compile int8"} <= set(report["seconds"])
    assert all(seconds >= 0 for seconds in report["seconds"].values())


# ------------------------------------------------------------------------- the accuracy gate


def test_an_int8_close_to_fp32_on_held_out_images_is_accepted(report):
    compared = report["agreement"]["with_fp32"]["int8"]
    assert report["agreement"]["held_out"] is True
    assert compared["images"] == 3
    assert 0 <= compared["matched"] <= 1
    assert 0.5 <= compared["mean_iou"] <= 1
    result = report["guard"]["verdicts"]["int8"]
    assert result["accepted"] is True
    assert result["drop"] <= result["limit"]
    assert report["guard"]["ap"] is None


def test_a_rejected_int8_is_kept_but_is_not_the_default(make):
    built = make(max_drop=0.0, default="int8")
    assert built.manifest.default != "int8"
    assert "int8" in built.manifest.variants
    assert built.manifest.rejected["int8"].endswith("more than 0")
    assert built.warned("int8 is not the default")
    assert built.report.guard.verdicts["int8"].accepted is False


def test_annotated_images_make_the_gate_compare_ap(make, photos, annotations):
    built = make(annotated=AnnotatedDataset(photos, annotations))
    result, ap = built.report.guard.verdicts["int8"], built.report.guard.ap
    assert result.measure == "ap"
    assert result.drop == pytest.approx(ap["fp32"] - ap["int8"], abs=1e-4)
    assert ("int8" in built.manifest.rejected) is not result.accepted


# --------------------------------------------------------------------------------- options


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse", "entropy"])
def test_another_range_rule_builds_another_graph(ranges, make, plain):
    built = make(ranges=ranges)
    assert built.report.options.ranges == ranges
    assert built.qdq != plain.qdq


def test_symmetric_activations_are_int8_around_zero(make):
    built = make(symmetric=True)
    assert {tensor.zero_point for tensor in built.report.tensors} == {0}
    constants = onnx.load_from_string(built.qdq).graph.initializer
    zeros = {each.data_type for each in constants if each.name.endswith("/zero_point")}
    assert zeros == {onnx.TensorProto.INT8}


def test_layers_that_are_kept_float_are_reported(make):
    assert make(keep_float=("*",)).warned("no convolution is quantized")
    built = make(keep_float=("c3.*", "absent*"))
    reasons = {layer.layer: layer.reason for layer in built.report.layers}
    kept = {"c3.cv1", "c3.cv2", "c3.cv3", "c3.m.cv1", "c3.m.cv2"}
    assert {layer for layer, reason in reasons.items() if reason == "named by c3.*"} == kept
    assert built.warned("absent*")
    assert not built.warned("c3.*")


def test_a_decode_tail_that_the_server_cannot_replace_is_a_warning_with_the_reason(make, plain):
    model = TINY["yolov5"]()
    (output,) = model.graph.output
    factor = numpy_helper.from_array(np.array(1.5, np.float32), "factor")
    model.graph.initializer.append(factor)
    model.graph.node.append(helper.make_node("Mul", [output.name, "factor"], ["larger"]))
    output.name = "larger"
    assert make(model).warned("decode tail", "no known layout")
    assert not plain.warned("decode tail")


def test_the_report_counts_the_operations_of_the_int8_engine(report, plain):
    execution = report["execution"]
    kinds = {kind["kind"] for kind in execution["kinds"]}
    assert "Convolution" in kinds
    assert not kinds & {"Const", "Input", "Output"}
    timed = [layer for layer in report["layers"] if layer["ms"] is not None]
    assert len(timed) == len(report["layers"])
    assert sum(kind["share"] for kind in execution["kinds"]) == pytest.approx(1, abs=0.01)
    assert plain.report.execution is None  # ONNX Runtime reports no times


# ------------------------------------------------------------------------ calibration images


def test_the_number_of_images_is_a_warning_only_below_a_limit(make, photos, plain, tmp_path):
    for path in sorted(photos.iterdir())[:4]:
        shutil.copy(path, tmp_path)
    built = make(images=tmp_path)
    assert built.report.calibration.images == 4
    assert (built.report.calibration.held_out, built.report.agreement.held_out) == (0, False)
    assert built.warned("only 4 usable")
    assert not plain.warned("usable")
    assert not plain.warned("decoded")


def test_undecodable_images_are_skipped_counted_and_named(make, photos, tmp_path):
    some = shutil.copytree(photos, tmp_path / "some")
    (some / "photo00a.jpg").write_bytes(b"no image")
    (some / "photo19z.png").write_bytes(b"")
    built = make(images=some)
    calibration = built.report.calibration
    assert set(calibration.unreadable) <= {"photo00a.jpg", "photo19z.png"}
    assert calibration.images + calibration.held_out + len(calibration.unreadable) == 22
    assert built.warned("could not be decoded")


@pytest.mark.parametrize("picture", [Image.new("L", (30, 40), 80), Image.new("RGB", (SIZE, SIZE))])
def test_one_grey_or_black_image_is_enough_to_build(picture, make, tmp_path):
    picture.save(tmp_path / "picture.png")
    built = make(images=tmp_path)
    assert {"fp32", "int8"} <= set(built.manifest.variants)
    assert built.report.calibration.images == 1
    assert all(np.isfinite(tensor.scale) for tensor in built.report.tensors)


def test_images_of_which_none_can_be_decoded_are_an_error(make, tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(b"no image")
    with pytest.raises(NoCalibrationImages, match="none of the 3 calibration images"):
        make(images=tmp_path)


# --------------------------------------------------------------------------------- models


def test_a_device_or_a_default_that_is_not_here_is_refused_before_anything_is_read(tmp_path):
    absent = (tmp_path / "absent.onnx", tmp_path)
    with pytest.raises(BadOption, match="device gpu"):
        build(BuildConfig(*absent, device="gpu"), tmp_path, lambda _: None)
    with pytest.raises(BadOption, match="default fp16: this processor or its runtime lacks it"):
        build(BuildConfig(*absent, device="cpu", default="fp16"), tmp_path, lambda _: None)


def test_a_model_that_detects_nothing_is_quantized_without_a_search(make):
    model = yolov5()
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".bias"):
            values = np.full(tuple(tensor.dims), -50, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    built = make(model)
    assert built.warned("detects nothing", "every layer is quantized")
    assert built.report.sensitivity is None
    assert built.report.int8_convolutions.planned == len(built.report.layers)
