"""Every command but those that serve: its output, its errors, its exit code."""

import json
import re
import shutil
from pathlib import Path

import pytest

from service.manifest import read_manifest
from tests.qyolo.commands import ESCAPE, Ran, inline, qyolo
from tests.tiny_models import save_tiny
from zoo import bundle

FASTEST = ("--runtime", "onnxruntime")  # it compiles in a fifth of the time
BUILD_OPTIONS = (
    *("--calibration", "--size", "--ranges", "--symmetric", "--bias-correction", "--head"),
    *("--preprocess", "--classes", "--keep-float", "--device", "--runtime"),
    "--trust-on-first-use",
)
SERVER_OPTIONS = ("--host", "--port", "--threads", "--collect")
OPTIONS = {
    "build": (*BUILD_OPTIONS, "--out", "--rebuild"),
    "serve": SERVER_OPTIONS,
    "up": (*BUILD_OPTIONS, *SERVER_OPTIONS),
    "recalibrate": ("--server", "--api-key", "--switch", "--min-agreement"),
    "reload": ("--server", "--api-key", "--min-agreement", "--new-classes", "QYOLO_API_KEY"),
    "watch": (
        *("--server", "--api-key", "--classes", "--conf", "--fps", "--confirm", "--cooldown"),
        *("--loop", "--name", "--mqtt", "--mjpeg-port", "--insecure", "QYOLO_MQTT_PASSWORD"),
    ),
    "models": ("--json",),
    "doctor": ("--device", "--runtime", "--json", "QYOLO_DEVICE"),
    "detect": ("--demo", "--variant", "--conf", "--iou", "--save", "--threads"),
    "eval": ("--images", "--annotations", "--per-class", "--json", "--threads"),
    "bench": ("--image", "--rounds", "--json", "--threads"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "yolov5")


def failed(ran: Ran, *words: object) -> None:
    """Exit code 2, one line on stderr that contains the words, and nothing on stdout."""
    assert (ran.code, ran.out) == (2, ""), ran.err
    (line,) = ran.err.splitlines()
    assert line.startswith("qyolo: ")
    for word in words:
        assert str(word) in line


def whole(folder: Path) -> bool:
    return set(read_manifest(folder).variants) >= {"fp32", "int8"}


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


# --------------------------------------------------------------------------------------- help


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], (*OPTIONS, "--debug", "Start with: qyolo up")),
        *(([command], options) for command, options in OPTIONS.items()),
    ],
)
def test_the_help_names_the_commands_and_their_options(arguments, words):
    ran = inline(*arguments, "--help")
    assert (ran.code, ran.err) == (0, "")
    for word in words:
        assert word in ESCAPE.sub("", ran.out)


def test_the_version_is_printed():
    ran = qyolo("--version")
    assert (ran.code, ran.out.split()[0]) == (0, "qyolo")


# -------------------------------------------------------------------------------------- build


def test_a_build_prints_the_folder_and_a_second_one_finds_it(model, photos, tmp_path):
    arguments = ("build", model, "--calibration", photos, "--size", 64, *FASTEST)
    first = qyolo(*arguments, QYOLO_CACHE_DIR=tmp_path)
    assert first.code == 0, first.err
    folder = Path(first.out.strip())
    assert folder.parent == tmp_path
    assert whole(folder)
    assert "ranges by uh from 17 images" in first.err
    assert "agrees with fp32" in first.err
    for progress in ("\x1b", "━", "calibrate"):  # stderr is not a terminal
        assert progress not in first.err
    made = (folder.stat().st_mtime_ns, folder.stat().st_ino)

    second = inline(*arguments, QYOLO_CACHE_DIR=tmp_path)
    assert (second.code, second.out, second.err) == (0, first.out, "")
    assert (folder.stat().st_mtime_ns, folder.stat().st_ino) == made

    third = inline(*arguments, "--rebuild", QYOLO_CACHE_DIR=tmp_path)
    assert third.out == first.out
    assert folder.stat().st_ino != made[1]
    assert whole(folder)


def test_a_build_replaces_a_model_folder_and_shows_its_warnings(
    model, photos, tiny_folder, tmp_path
):
    few, out = tmp_path / "few", tmp_path / "deep" / "model"
    few.mkdir()
    for path in sorted(photos.iterdir())[:3]:
        shutil.copy(path, few)
    shutil.copytree(tiny_folder, out)
    arguments = ("build", model, "--calibration", few, "--size", 64, "--out", out)
    ran = inline(*arguments, *FASTEST, "--ranges", "minmax")
    assert (ran.code, ran.out.strip()) == (0, str(out)), ran.err
    assert report_of(out)["options"]["ranges"] == "minmax"
    assert "warning: only 3 usable calibration images" in ran.err
    assert list(out.parent.iterdir()) == [out]
    assert whole(out)


def test_a_path_that_is_no_model_folder_is_not_overwritten(model, photos, tmp_path):
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    for out, words in ((tmp_path, "contains other files"), (thesis, "is a file")):
        ran = inline("build", model, "--calibration", photos, "--size", 64, "--out", out)
        failed(ran, f"--out {out} {words}")
    assert list(tmp_path.iterdir()) == [thesis]


def test_a_build_that_fails_leaves_nothing_behind(photos, tmp_path):
    model, out = save_tiny(tmp_path, "end2end"), tmp_path / "m"
    ran = inline("build", model, "--calibration", photos, "--size", 96, "--out", out)
    failed(ran, "does not work at 96x96", "use --size 64")
    assert list(tmp_path.iterdir()) == [model]


def test_every_option_of_a_build_reaches_the_report(model, photos, tmp_path):
    (tmp_path / "names.txt").write_text("Katze\nHund\nVogel\n")
    options = (
        *("--ranges", "percentile", "--symmetric", "--no-bias-correction"),
        *("--no-adaptive-rounding", "--no-equalisation", "--no-range-refinement"),
        *("--head", "yolov5", "--preprocess", "yolox"),
        *("--classes", tmp_path / "names.txt"),
        *("--keep-float", "p*", "--keep-float", "stem"),
        *("--device", "cpu", "--runtime", "onnxruntime"),
        *("--min-sqnr", 12, "--max-drop", 1),
    )
    out = tmp_path / "m"
    ran = inline("build", model, "--calibration", photos, "--size", 64, "--out", out, *options)
    assert ran.code == 0, ran.err
    assert report_of(out)["options"] | {"threads": 0} == {
        "size": "64",
        "ranges": "percentile",
        "symmetric": True,
        "bias_correction": False,
        "adaptive_rounding": False,
        "equalisation": False,
        "range_refinement": False,
        "keep_float": ["p*", "stem"],
        "min_sqnr": 12.0,
        "max_drop": 1.0,
        "runtime": "onnxruntime",
        "accelerator": None,
        "target": [],
        "threads": 0,
    }
    manifest = read_manifest(out)
    assert (manifest.preprocess, manifest.class_names) == ("yolox", ("Katze", "Hund", "Vogel"))


def test_another_family_goes_from_model_to_boxes(photos, tmp_path):
    out = tmp_path / "m"
    path = save_tiny(tmp_path, "yolox")
    arguments = ("build", path, "--calibration", photos, "--size", 64, "--out", out)
    built = inline(*arguments, *FASTEST)
    assert built.code == 0, built.err
    found = inline("detect", out, *sorted(photos.iterdir())[:2], "--conf", "0.01")
    assert found.code == 0, found.err
    assert [json.loads(line)["model"] for line in found.out.splitlines()] == ["yolox"] * 2


def test_without_calibration_images_the_bundled_ones_are_used(photos, tmp_path):
    path, out = save_tiny(tmp_path, "end2end"), tmp_path / "m"
    ran = inline("build", path, "--size", 64, "--out", out, *FASTEST)
    assert ran.code == 0, ran.err
    assert "calibrating on the bundled images" in ran.err
    assert "--calibration DIR" in ran.err
    report = report_of(out)
    pictures = [path for path in bundle.CALIBRATION.iterdir() if path.suffix == ".jpg"]
    held_out = report["agreement"]["with_fp32"]["int8"]["images"]
    assert report["calibration"]["images"] == len(pictures) - held_out
    found = inline("detect", out, photos / "photo00.jpg", "--conf", "0.01")
    assert json.loads(found.out)["model"] == "end2end"


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "absent.onnx", "--calibration", "{photos}"], ["no such file", "absent.onnx"]),
        (["build", "{tmp}/bad.onnx"], ["bad.onnx is not a readable ONNX file"]),
        (["build", "{model}", "--calibration", "absent"], ["no such folder", "absent"]),
        (["build", "{model}", "--calibration", "{photos}", "--size", "65"], ["--size 65: "]),
        (
            ["build", "{model}", "--calibration", "{photos}", "--size", "640x360"],
            ["--size 640x360: ", "use --size 640x352"],
        ),
        (
            ["build", "{model}", "--calibration", "{photos}", "--size", "0"],
            ["--size 0: ", "640x384"],
        ),
        (["up", "{model}", "--calibration", "{photos}", "--size", "wide"], ["--size wide: "]),
        (
            ["study", "{model}", "--size", "640x8", "--images", "a", "--annotations", "b"],
            ["--size 640x8: a side has 32 to 4096 pixels"],
        ),
        (["build", "{model}", "--calibration", "{photos}", "--device", "gpu"], ["--device gpu: "]),
        (["build", "{model}", "--calibration", "{photos}", "--classes", "nix"], ["--classes nix"]),
        (
            ["build", "{model}", "--calibration", "{photos}", "--images", "{photos}"],
            ["--images", "--annotations"],
        ),
        (["up", "absent.onnx", "--calibration", "{photos}"], ["absent.onnx"]),
        (["up", "absent.pt"], ["absent.pt", "pickle", "format=onnx"]),
        (["selftest", "--device", "gpu"], ["--device gpu: "]),
        (["serve", "absent"], ["absent", "model folder"]),
        (["serve", "{tiny}", "boats=absent"], ["absent is not a model folder"]),
        (["serve"], ["qyolo serve FOLDER", "QYOLO_MODELS=FOLDER"]),
        (["cluster", "{tiny}", "--min", "2", "--max", "1"], ["--max 1: "]),
        (["detect", "absent", "a.jpg"], ["absent", "model folder"]),
        (["detect", "{tiny}"], ["images", "--demo"]),
        (["detect"], ["model folder", "--demo"]),
        (["detect", "{tiny}", "--demo"], ["--demo"]),
        (["detect", "{tiny}", "{photos}/photo00.jpg", "--variant", "int4"], ["int4", "fp32"]),
        (["eval", "absent", "--images", "a", "--annotations", "b"], ["absent", "model folder"]),
        (["eval", "{tiny}", "--images", "{photos}", "--annotations", "absent.json"], ["absent"]),
        (["bench", "absent"], ["absent", "model folder"]),
        (["bench", "{tiny}", "--image", "absent.jpg"], ["absent.jpg"]),
    ],
    ids=" ".join,
)
def test_an_error_that_the_user_can_fix_is_one_line_and_exit_code_two(
    arguments, words, model, photos, tiny_folder, tmp_path
):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    known = {"model": model, "photos": photos, "tiny": tiny_folder, "tmp": tmp_path}
    ran = inline(*(text.format(**known) for text in arguments), QYOLO_CACHE_DIR=tmp_path)
    failed(Ran(ran.code, ran.out, re.sub(r"qyolo: calibrating on .*\n", "", ran.err)), *words)


@pytest.mark.parametrize(
    "arguments",
    [["build", "m.onnx", "--ranges", "magic"], ["bench", "d", "--rounds", "0"], ["nonsense"]],
)
def test_an_invalid_command_line_is_exit_code_two(arguments):
    ran = inline(*arguments)
    assert ran.code == 2
    assert "Traceback" not in ran.err


def test_a_traceback_is_shown_only_with_debug():
    assert "Traceback" in qyolo("--debug", "serve", "absent").err
    failed(inline("serve", "absent"))


@pytest.mark.parametrize(
    "settings", [{"QYOLO_PORT": "http"}, {"QYOLO_API_KEYS_FILE": ".", "QYOLO_CONF": "7"}]
)
def test_a_bad_setting_in_the_environment_is_named(settings, tiny_folder):
    failed(inline("serve", tiny_folder, **settings), f"qyolo: {list(settings)[-1]}: ")


def test_a_damaged_model_folder_is_not_used(tiny_folder, photos, tmp_path):
    """One bit of a file has changed."""
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder, folder)
    variant = read_manifest(folder).variants["int8"]
    for name in ("manifest.json", variant.model, variant.blob):
        whole = (folder / name).read_bytes()
        half = len(whole) // 2
        (folder / name).write_bytes(whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :])
        for command in (("serve", folder), ("detect", folder, photos / "photo00.jpg")):
            failed(inline(*command), "corrupt", name)
        (folder / name).write_bytes(whole)


# ------------------------------------------------------------------------- detect, eval, bench


def test_detect_prints_a_line_of_json_for_each_image(tiny_folder, photos, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    unreadable = [tmp_path / "bad.jpg", tmp_path / "absent.jpg"]
    images = [photos / "photo00.jpg", *unreadable, photos / "photo01.png"]
    save = tmp_path / "saved"
    ran = inline("detect", tiny_folder, *images, "--conf", 0.05, "--save", save)
    assert ran.code == 2
    first, *failures, last = map(json.loads, ran.out.splitlines())
    assert [each["file"] for each in (first, *failures, last)] == [str(path) for path in images]
    assert [set(each) for each in failures] == [{"file", "error"}] * 2
    assert ran.err == "qyolo: 2 of 4 images gave no boxes\n"
    assert first["detections"]
    assert set(first["detections"][0]) == {"box", "score", "class_id", "class_name"}
    assert first["image"] == {"width": 80, "height": 60}
    assert (first["model"], first["variant"]) == ("yolov5", "int8")
    assert set(first["timings_ms"]) >= {"decode", "preprocess", "infer", "postprocess"}
    assert sorted(path.name for path in save.iterdir()) == ["photo00.jpg", "photo01.jpg"]


def test_detect_with_another_variant_and_thresholds(tiny_folder, photos):
    counts = []
    for conf in (0.05, 0.3, 1.0):
        options = ("--variant", "fp32", "--conf", conf)
        answer = json_of(inline("detect", tiny_folder, photos / "photo00.jpg", *options))
        assert answer["variant"] == "fp32"
        counts.append(len(answer["detections"]))
    assert counts[0] > counts[1] >= counts[2] == 0


@pytest.fixture(scope="module")
def evaluate(tiny_folder, photos, annotations):
    arguments = ("eval", tiny_folder, "--images", photos, "--annotations", annotations)
    return lambda *options: inline(*arguments, *options)


def json_of(ran: Ran) -> dict:
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def test_evaluation_as_json(evaluate, tiny_folder):
    result = json_of(evaluate("--json"))
    assert result["images"] == 4
    assert list(result["variants"]) == list(read_manifest(tiny_folder).variants)
    assert result["variants"]["fp32"]["ap"] == pytest.approx(1, abs=0.02)
    assert 0 <= result["agreement_with_fp32"]["int8"]["matched"] <= 1


def test_evaluation_as_a_table_and_of_each_class_on_request(evaluate):
    plain, full = evaluate(), evaluate("--per-class")
    for ran in (plain, full):
        assert (ran.code, ran.err) == (0, "")
        for word in ("fp32", "int8", "AP50", "agrees with fp32"):
            assert word in ran.out
    assert "AP / AP50 by class" not in plain.out
    assert "AP / AP50 by class" in full.out
    assert re.search(r"│ cat +│ +\d+ │ [\d.]+ / [\d.]+ │ [\d.]+ / [\d.]+ │", full.out)


def test_latency_as_json(tiny_folder):
    result = json_of(inline("bench", tiny_folder, "--rounds", 20, "--json"))
    assert (result["rounds"], result["image"]) == (20, "640x480")
    names = set(read_manifest(tiny_folder).variants)
    assert set(result["variants"]) == set(result["speedup"]) == names
    for latency in result["variants"].values():
        for times in (latency["infer_ms"], latency["total_ms"]):
            assert 0 < times["p50"] <= times["p90"] <= times["p99"]
        assert latency["infer_ms"]["p50"] < latency["total_ms"]["p50"]
    assert result["speedup"]["fp32"] == 1


def test_latency_on_an_image_as_a_table(tiny_folder, photos):
    ran = inline("bench", tiny_folder, "--rounds", 3, "--image", photos / "photo00.jpg")
    assert (ran.code, ran.err) == (0, "")
    for word in ("80x60", "fp32", "int8", "p99"):
        assert word in ran.out
