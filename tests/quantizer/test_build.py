import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from quantizer.build import build
from quantizer.compile.candidates import LOW_NAMES
from quantizer.compile.runtime import load_builder
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.errors import BadOption, NoCalibrationImages, UnsupportedModel
from quantizer.report.data import Report
from quantizer.versions import sha256_of, versions
from service.inference.detector import Detector
from service.manifest import read_manifest
from service.progress import Progress
from service.vision.image import Photo
from service.vision.postprocess import Query
from tests.tiny_models import CELLS, CLASSES, SIZE, TINY, save_tiny, yolov5


def silent(_: Progress) -> None:
    """Nobody watches."""


def recipe_of(folder: Path, photos: Path, name: str = "yolov5", **options: object) -> BuildConfig:
    return BuildConfig(save_tiny(folder, name), photos, size=SIZE, threads=1, **options)


def built(folder: Path, config: BuildConfig) -> tuple[Path, Report]:
    target = folder / "built"
    target.mkdir()
    return target, build(config, target, silent)


@pytest.fixture(scope="module")
def report(tiny_folder):
    return json.loads((tiny_folder / "report.json").read_text())


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("name", TINY)
def test_every_family_is_built_into_a_whole_folder_that_detects(name, runtime, tmp_path, photos):
    folder, report = built(tmp_path, recipe_of(tmp_path, photos, name, runtime=runtime))
    manifest = read_manifest(folder)
    low = load_builder(runtime, 1).low_float
    lower = [] if low is None else [LOW_NAMES[low]]
    assert set(manifest.variants) == {"fp32", "int8", *lower}
    assert set(folder.iterdir()) >= {folder / name for name in ("fp32", *lower)}
    assert {variant.runtime for variant in manifest.variants.values()} == {runtime}
    assert report.model.head == manifest.head
    for variant in manifest.variants:
        detector = Detector.load(folder, manifest, variant, 1)
        found = detector.detect(
            Photo.from_pixels(np.full((60, 80, 3), 128, np.uint8)), Query(conf=0.01)
        )
        detector.close()
        assert np.isfinite(found.xyxy).all()
        assert set(found.class_ids.tolist()) <= {0, 1, 2}


def test_the_manifest_tells_what_was_built(tiny_folder):
    manifest = read_manifest(tiny_folder)
    assert (manifest.name, manifest.size, manifest.default) == ("yolov5", SIZE, "int8")
    assert (manifest.head, manifest.preprocess) == ("yolov5", "yolo")
    assert manifest.class_names == CLASSES
    assert (manifest.input_name, manifest.output_name) == ("images", "output.y")
    assert manifest.output_shape == (1, 3 * CELLS, 5 + len(CLASSES))
    assert manifest.versions == versions()


def test_the_source_is_named_by_its_digest(tmp_path, photos):
    config = recipe_of(tmp_path, photos)
    folder, report = built(tmp_path, config)
    assert read_manifest(folder).source_sha256 == report.model.sha256 == sha256_of(config.model)


def test_the_qdq_graph_lies_in_the_folder_and_is_valid(tiny_folder, report):
    model = onnx.load(tiny_folder / "model.qdq.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == len(report["tensors"])


def test_the_report_describes_the_model_and_the_options(report):
    assert report["model"]["output"] == [1, 252, 8]
    assert report["model"]["classes"] == 3
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
    assert report["calibration"] | {"ms_per_image": 0} == {
        "images": 17,
        "held_out": 3,
        "unreadable": [],
        "ms_per_image": 0,
    }
    variants = read_manifest(tiny_folder).variants
    assert set(report["bytes"]) == set(report["ms"]) == set(variants)
    for name, variant in variants.items():
        files = (tiny_folder / variant.model).parent.iterdir()
        assert report["bytes"][name] == sum(path.stat().st_size for path in files)
        assert 0 < report["ms"][name] < 1000
    steps = {"read", "calibrate", "precision", "quantize", "time", "compare"}
    assert steps < set(report["seconds"])
    assert {"compile fp32", "compile int8"} < set(report["seconds"])
    assert all(seconds >= 0 for seconds in report["seconds"].values())


def test_the_report_compares_int8_with_fp32_on_held_out_images(report):
    compared = report["agreement"]["with_fp32"]["int8"]
    assert report["agreement"]["held_out"] is True
    assert compared["images"] == 3
    assert 0 <= compared["matched"] <= 1
    assert 0.5 <= compared["mean_iou"] <= 1


def test_an_int8_that_is_close_enough_is_the_default(report, tiny_folder):
    verdict = report["guard"]["verdicts"]["int8"]
    assert verdict["accepted"] is True
    assert verdict["drop"] <= verdict["limit"]
    assert report["guard"]["ap"] is None
    assert read_manifest(tiny_folder).rejected == {}


def test_an_int8_that_lost_too_much_is_kept_but_not_the_default(tmp_path, photos):
    folder, report = built(tmp_path, recipe_of(tmp_path, photos, max_drop=0.0, default="int8"))
    manifest = read_manifest(folder)
    assert manifest.default != "int8"
    assert "int8" in manifest.variants
    assert manifest.rejected["int8"].endswith("more than 0")
    assert [text for text in report.warnings if text.startswith("int8 is not the default")]
    assert report.guard.verdicts["int8"].accepted is False


def test_annotated_images_are_what_int8_is_judged_by(tmp_path, photos, truth):
    annotations = tmp_path / "truth.json"
    annotations.write_text(json.dumps(truth))
    config = recipe_of(tmp_path, photos, annotated=AnnotatedDataset(photos, annotations))
    folder, report = built(tmp_path, config)
    verdict, ap = report.guard.verdicts["int8"], report.guard.ap
    assert verdict.measure == "ap"
    assert verdict.drop == pytest.approx(ap["fp32"] - ap["int8"], abs=1e-4)
    assert ("int8" in read_manifest(folder).rejected) is not verdict.accepted


def test_the_returned_report_is_the_written_one(tmp_path, photos):
    folder, report = built(tmp_path, recipe_of(tmp_path, photos))
    assert (folder / "report.json").read_text() == report.to_json()


def test_two_builds_that_free_the_same_layers_give_the_same_qdq_bytes(tmp_path, photos):
    """What is freed hangs on measured times, so here nothing is."""
    graphs = []
    for name in ("one", "other"):
        home = tmp_path / name
        home.mkdir()
        folder, _ = built(home, recipe_of(home, photos, min_sqnr=0.0))
        graphs.append((folder / "model.qdq.onnx").read_bytes())
    assert graphs[0] == graphs[1]


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse", "entropy"])
def test_other_rules_build_other_graphs(ranges, tmp_path, photos, tiny_folder):
    folder, report = built(tmp_path, recipe_of(tmp_path, photos, ranges=ranges))
    assert report.options.ranges == ranges
    assert (folder / "model.qdq.onnx").read_bytes() != (tiny_folder / "model.qdq.onnx").read_bytes()


def test_symmetric_activations_are_int8_around_zero(tmp_path, photos):
    folder, report = built(tmp_path, recipe_of(tmp_path, photos, symmetric=True))
    assert {tensor.zero_point for tensor in report.tensors} == {0}
    zeros = {
        tensor.name: tensor.data_type
        for tensor in onnx.load(folder / "model.qdq.onnx").graph.initializer
        if tensor.name.endswith("/zero_point")
    }
    assert set(zeros.values()) == {onnx.TensorProto.INT8}


def test_layers_that_are_kept_float_are_reported(tmp_path, photos):
    config = recipe_of(tmp_path, photos, keep_float=("c3.*", "absent*"))
    _, report = built(tmp_path, config)
    reasons = {layer.layer: layer.reason for layer in report.layers}
    assert reasons["c3.cv1"] == "asked for by c3.*"
    kept = {"c3.cv1", "c3.cv2", "c3.cv3", "c3.m.cv1", "c3.m.cv2"}
    assert {layer for layer, reason in reasons.items() if reason == "asked for by c3.*"} == kept
    assert [text for text in report.warnings if "absent*" in text]
    assert not [text for text in report.warnings if "c3.*" in text]


def test_nothing_quantized_is_a_warning(tmp_path, photos):
    _, report = built(tmp_path, recipe_of(tmp_path, photos, keep_float=("*",)))
    assert [text for text in report.warnings if "no convolution is quantized" in text]


def test_progress_goes_through_every_phase_and_counts_to_the_end(tmp_path, photos):
    steps: list[Progress] = []
    target = tmp_path / "built"
    target.mkdir()
    build(recipe_of(tmp_path, photos), target, steps.append)
    phases = list(dict.fromkeys(step.phase for step in steps))
    assert phases == ["read", "calibrate", "precision", "quantize", "compile", "time", "compare"]
    last = {step.phase: (step.done, step.total) for step in steps}
    assert last["calibrate"] == (17, 17)
    assert last["compile"] in {(2, 2), (4, 4)}
    assert last["compare"] == (3, 3)


# ------------------------------------------------------------------------ calibration images


def some_photos(folder: Path, photos: Path, count: int) -> Path:
    chosen = folder / "some"
    chosen.mkdir()
    for path in sorted(photos.iterdir())[:count]:
        shutil.copy(path, chosen)
    return chosen


def test_few_images_are_a_warning(tmp_path, photos):
    few = some_photos(tmp_path, photos, 4)
    _, report = built(tmp_path, recipe_of(tmp_path, few))
    assert report.calibration.images == 4
    assert (report.calibration.held_out, report.agreement.held_out) == (0, False)
    assert [text for text in report.warnings if "only 4 usable" in text]


def test_enough_images_are_none(tmp_path, photos):
    _, report = built(tmp_path, recipe_of(tmp_path, photos))
    assert not [text for text in report.warnings if "usable" in text or "decoded" in text]


def test_unreadable_images_are_skipped_counted_and_named(tmp_path, photos):
    some = some_photos(tmp_path, photos, 20)
    (some / "photo00a.jpg").write_bytes(b"no image")
    (some / "photo19z.png").write_bytes(b"")
    _, report = built(tmp_path, recipe_of(tmp_path, some))
    skipped = report.calibration.unreadable
    assert set(skipped) <= {"photo00a.jpg", "photo19z.png"}
    assert report.calibration.images + report.calibration.held_out + len(skipped) == 22
    assert [text for text in report.warnings if "could not be decoded" in text]


def test_images_of_which_none_is_readable_are_an_error(tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    for index in range(3):
        (bad / f"{index}.jpg").write_bytes(b"no image")
    with pytest.raises(NoCalibrationImages, match="none of the 3 calibration images"):
        built(tmp_path, recipe_of(tmp_path, bad))


def test_a_single_grey_image_is_enough_to_build(tmp_path):
    one = tmp_path / "one"
    one.mkdir()
    Image.new("L", (30, 40), 80).save(one / "grey.png")
    folder, report = built(tmp_path, recipe_of(tmp_path, one))
    assert {"fp32", "int8"} <= set(read_manifest(folder).variants)
    assert report.calibration.images == 1


def test_a_black_image_builds_too(tmp_path):
    black = tmp_path / "black"
    black.mkdir()
    Image.new("RGB", (SIZE, SIZE)).save(black / "black.png")
    _, report = built(tmp_path, recipe_of(tmp_path, black))
    assert all(np.isfinite(tensor.scale) for tensor in report.tensors)


# ---------------------------------------------------------------------------------- refusals


def test_a_gpu_is_refused_before_anything_is_read(tmp_path, photos):
    with pytest.raises(BadOption, match="device gpu"):
        build(BuildConfig(tmp_path / "absent.onnx", photos, device="gpu"), tmp_path, silent)


def test_a_model_that_computes_no_numbers_is_refused(tmp_path, photos):
    model = yolov5()
    weight = next(t for t in model.graph.initializer if t.name == "c3.cv1.weight")
    broken = np.full(tuple(weight.dims), np.nan, np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(broken, weight.name))
    onnx.save(model, tmp_path / "nan.onnx")
    with pytest.raises(UnsupportedModel, match="not finite"):
        built(tmp_path, BuildConfig(tmp_path / "nan.onnx", photos, size=SIZE, threads=1))
