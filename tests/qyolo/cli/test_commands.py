import json
import re
import shutil
from pathlib import Path

import pytest

from service.manifest import read_manifest
from tests.qyolo.commands import ESCAPE, Ran, on_terminal, qyolo
from tests.tiny_models import save_tiny
from zoo import bundle

BUILD_OPTIONS = (
    "--calibration",
    "--size",
    "--ranges",
    "--symmetric",
    "--bias-correction",
    "--head",
    "--preprocess",
    "--classes",
    "--keep-float",
    "--device",
    "--runtime",
    "--trust-on-first-use",
)
SERVER_OPTIONS = ("--host", "--port", "--threads", "--collect")
OPTIONS = {
    "build": (*BUILD_OPTIONS, "--out", "--rebuild"),
    "serve": SERVER_OPTIONS,
    "up": (*BUILD_OPTIONS, *SERVER_OPTIONS),
    "models": ("--json",),
    "detect": ("--demo", "--variant", "--conf", "--iou", "--save", "--threads"),
    "eval": ("--images", "--annotations", "--per-class", "--json", "--threads"),
    "bench": ("--image", "--rounds", "--json", "--threads"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "yolov5")


def failed(ran: Ran, *words: object, code: int = 2) -> None:
    """One line on stderr says why, and nothing is on stdout."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    assert len(ran.err.strip().splitlines()) == 1, ran.err
    assert ran.err.startswith("qyolo: ")
    for word in words:
        assert str(word) in ran.err


def whole(folder: Path) -> bool:
    return set(read_manifest(folder).variants) >= {"fp32", "int8"}


# --------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", OPTIONS)
def test_the_help_of_a_command_names_its_options(command):
    ran = qyolo(command, "--help")
    assert ran.code == 0
    text = ESCAPE.sub("", ran.out)
    for option in OPTIONS[command]:
        assert option in text
    assert "Traceback" not in ran.err


def test_the_help_names_the_commands_and_where_to_start():
    ran = qyolo("--help")
    assert ran.code == 0
    text = ESCAPE.sub("", ran.out)
    for word in (*OPTIONS, "--debug", "Start with: qyolo up"):
        assert word in text


def test_the_version():
    ran = qyolo("--version")
    assert (ran.code, ran.out.split()[0]) == (0, "qyolo")


# -------------------------------------------------------------------------------------- build


def test_a_build_prints_the_folder_and_a_second_one_finds_it(model, photos, tmp_path):
    arguments = ("build", model, "--calibration", photos, "--size", 64)
    first = qyolo(*arguments, QYOLO_CACHE_DIR=tmp_path)
    assert first.code == 0, first.err
    folder = Path(first.out.strip())
    assert folder.parent == tmp_path
    assert whole(folder)
    assert "ranges by uh from 17 images" in first.err
    assert "agrees with fp32" in first.err
    made = (folder.stat().st_mtime_ns, folder.stat().st_ino)

    second = qyolo(*arguments, QYOLO_CACHE_DIR=tmp_path)
    assert (second.code, second.out, second.err) == (0, first.out, "")
    assert (folder.stat().st_mtime_ns, folder.stat().st_ino) == made

    third = qyolo(*arguments, "--rebuild", QYOLO_CACHE_DIR=tmp_path)
    assert third.out == first.out
    assert folder.stat().st_ino != made[1]
    assert whole(folder)


def test_progress_is_silent_where_nobody_looks(model, photos, tmp_path):
    ran = qyolo("build", model, "--calibration", photos, "--size", 64, "--out", tmp_path / "m")
    assert ran.code == 0
    assert "\x1b" not in ran.err
    assert "━" not in ran.err
    assert "calibrate" not in ran.err


def test_progress_is_shown_on_a_terminal(model, photos, tmp_path):
    arguments = ["build", model, "--calibration", photos, "--size", 64, "--out", tmp_path / "m"]
    shown = on_terminal(*arguments)
    for phase in ("calibrate", "compile", "compare"):
        assert phase in shown
    assert "17/17" in shown


def test_a_build_into_a_folder_replaces_the_model_that_was_there(model, photos, tmp_path):
    out = tmp_path / "deep" / "model"
    arguments = ("build", model, "--calibration", photos, "--size", 64, "--out", out)
    for rule in ("uh", "minmax"):
        ran = qyolo(*arguments, "--ranges", rule)
        assert (ran.code, ran.out.strip()) == (0, str(out)), ran.err
        assert json.loads((out / "report.json").read_text())["options"]["ranges"] == rule
    assert list(out.parent.iterdir()) == [out]
    assert whole(out)


def test_a_folder_with_other_things_is_not_overwritten(model, photos, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    ran = qyolo("build", model, "--calibration", photos, "--size", 64, "--out", tmp_path)
    failed(ran, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_build_that_fails_leaves_nothing_behind(model, photos, tmp_path):
    ran = qyolo("build", model, "--calibration", photos, "--size", 96, "--out", tmp_path / "m")
    failed(ran, "does not work at 96x96", "the option size")
    assert list(tmp_path.iterdir()) == []


def test_every_option_of_a_build_reaches_the_report(model, photos, tmp_path):
    (tmp_path / "names.txt").write_text("Katze\nHund\nVogel\n")
    options = (
        *("--ranges", "percentile", "--symmetric", "--no-bias-correction"),
        *("--head", "yolov5", "--preprocess", "yolox"),
        *("--classes", tmp_path / "names.txt"),
        *("--keep-float", "p*", "--keep-float", "stem"),
        *("--device", "cpu", "--runtime", "onnxruntime"),
        *("--min-sqnr", 12, "--max-drop", 1),
    )
    out = tmp_path / "m"
    ran = qyolo("build", model, "--calibration", photos, "--size", 64, "--out", out, *options)
    assert ran.code == 0, ran.err
    report = json.loads((out / "report.json").read_text())
    assert report["options"] | {"threads": 0} == {
        "ranges": "percentile",
        "symmetric": True,
        "bias_correction": False,
        "keep_float": ["p*", "stem"],
        "min_sqnr": 12.0,
        "runtime": "onnxruntime",
        "threads": 0,
    }
    manifest = read_manifest(out)
    assert (manifest.preprocess, manifest.class_names) == ("yolox", ("Katze", "Hund", "Vogel"))


@pytest.mark.parametrize("name", ["yolox", "end2end"])
def test_another_family_goes_from_model_to_boxes(name, photos, tmp_path):
    out = tmp_path / "m"
    path = save_tiny(tmp_path, name)
    built = qyolo("build", path, "--calibration", photos, "--size", 64, "--out", out)
    assert built.code == 0, built.err
    found = qyolo("detect", out, *sorted(photos.iterdir())[:2], "--conf", "0.01")
    assert found.code == 0, found.err
    assert [json.loads(line)["model"] for line in found.out.splitlines()] == [name] * 2


def test_a_warning_is_shown(model, photos, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(photos.iterdir())[:3]:
        shutil.copy(path, few)
    ran = qyolo("build", model, "--calibration", few, "--size", 64, "--out", tmp_path / "m")
    assert ran.code == 0
    assert "warning: only 3 usable calibration images" in ran.err


def test_without_calibration_images_the_pictures_in_the_box_are_used(model, tmp_path):
    ran = qyolo("build", model, "--size", 64, "--out", tmp_path / "m")
    assert ran.code == 0
    assert "calibrating on the pictures that come with it" in ran.err
    assert "--calibration DIR" in ran.err
    report = json.loads((tmp_path / "m" / "report.json").read_text())
    pictures = [path for path in bundle.CALIBRATION.iterdir() if path.suffix == ".jpg"]
    held_out = report["agreement"]["with_fp32"]["int8"]["images"]
    assert report["calibration"]["images"] == len(pictures) - held_out


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "absent.onnx", "--calibration", "{photos}"], ["no such file", "absent.onnx"]),
        (["build", "{model}", "--calibration", "absent"], ["no such folder", "absent"]),
        (["build", "{model}", "--calibration", "{photos}", "--size", "65"], ["--size 65"]),
        (["build", "{model}", "--calibration", "{photos}", "--device", "gpu"], ["--device gpu"]),
        (["build", "{model}", "--calibration", "{photos}", "--classes", "nix"], ["nix"]),
        (
            ["build", "{model}", "--calibration", "{photos}", "--images", "{photos}"],
            ["--images", "--annotations"],
        ),
        (["up", "absent.onnx", "--calibration", "{photos}"], ["absent.onnx"]),
        (["serve", "absent"], ["absent", "model folder"]),
        (["up", "absent.pt"], ["absent.pt", "pickle", "format=onnx"]),
        (["detect", "absent", "a.jpg"], ["absent", "model folder"]),
        (["detect", "{tiny}"], ["images", "--demo"]),
        (["detect"], ["model folder", "--demo"]),
        (["detect", "{tiny}", "--demo"], ["--demo"]),
        (
            ["detect", "{tiny}", "{photos}/photo00.jpg", "--variant", "int4"],
            ["int4", "fp32"],
        ),
        (["eval", "absent", "--images", "a", "--annotations", "b"], ["absent", "model folder"]),
        (["eval", "{tiny}", "--images", "{photos}", "--annotations", "absent.json"], ["absent"]),
        (["bench", "absent"], ["absent", "model folder"]),
        (["bench", "{tiny}", "--image", "absent.jpg"], ["absent.jpg"]),
    ],
    ids=" ".join,
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_two(
    arguments, words, model, photos, tiny_folder, tmp_path
):
    known = {"model": model, "photos": photos, "tiny": tiny_folder}
    ran = qyolo(*(text.format(**known) for text in arguments), QYOLO_CACHE_DIR=tmp_path)
    failed(ran, *words)


@pytest.mark.parametrize(
    "arguments",
    [["build", "m.onnx", "--ranges", "magic"], ["bench", "d", "--rounds", "0"], ["nonsense"]],
)
def test_a_wrong_word_on_the_command_line_is_exit_code_two(arguments):
    ran = qyolo(*arguments)
    assert ran.code == 2
    assert "Traceback" not in ran.err


def test_a_traceback_is_shown_only_with_debug():
    assert "Traceback" in qyolo("--debug", "serve", "absent").err
    assert "Traceback" not in qyolo("serve", "absent").err


def test_a_bad_setting_in_the_environment_is_named(tiny_folder):
    failed(qyolo("serve", tiny_folder, QYOLO_PORT="http"), "QYOLO_PORT")


def test_a_damaged_model_folder_is_not_used(tiny_folder, photos, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder, folder)
    weights = Path(read_manifest(folder).variants["int8"].model).with_suffix(".bin")
    with (folder / weights).open("ab") as file:
        file.write(b"?")
    for command in (("serve", folder), ("detect", folder, photos / "photo00.jpg")):
        failed(qyolo(*command), f"{weights} has changed")


# --------------------------------------------------------------------------------- eval, bench


@pytest.fixture(scope="module")
def annotations(truth, tmp_path_factory):
    path = tmp_path_factory.mktemp("coco") / "annotations.json"
    path.write_text(json.dumps(truth))
    return path


def test_evaluation_as_json(tiny_folder, photos, annotations):
    ran = qyolo("eval", tiny_folder, "--images", photos, "--annotations", annotations, "--json")
    assert (ran.code, ran.err) == (0, "")
    result = json.loads(ran.out)
    assert result["images"] == 4
    assert list(result["variants"]) == list(read_manifest(tiny_folder).variants)
    assert result["variants"]["fp32"]["ap"] == pytest.approx(1, abs=0.02)
    assert 0 <= result["agreement_with_fp32"]["int8"]["matched"] <= 1


def test_each_class_on_request(tiny_folder, photos, annotations):
    ran = qyolo(
        "eval", tiny_folder, "--images", photos, "--annotations", annotations, "--per-class"
    )
    assert ran.code == 0
    assert "AP / AP50 by class" in ran.out
    assert re.search(r"│ cat +│ +\d+ │ [\d.]+ / [\d.]+ │ [\d.]+ / [\d.]+ │", ran.out)


def test_evaluation_as_a_table(tiny_folder, photos, annotations):
    ran = qyolo("eval", tiny_folder, "--images", photos, "--annotations", annotations)
    assert (ran.code, ran.err) == (0, "")
    for word in ("fp32", "int8", "AP50", "agrees with fp32"):
        assert word in ran.out


def test_latency_as_json(tiny_folder):
    ran = qyolo("bench", tiny_folder, "--rounds", 20, "--json")
    assert (ran.code, ran.err) == (0, "")
    result = json.loads(ran.out)
    assert (result["rounds"], result["image"]) == (20, "640x480")
    names = set(read_manifest(tiny_folder).variants)
    assert set(result["variants"]) == set(result["speedup"]) == names
    for latency in result["variants"].values():
        for times in (latency["infer_ms"], latency["total_ms"]):
            assert 0 < times["p50"] <= times["p90"] <= times["p99"]
        assert latency["infer_ms"]["p50"] < latency["total_ms"]["p50"]
    assert result["speedup"]["fp32"] == 1


def test_latency_as_a_table_on_a_picture(tiny_folder, photos):
    ran = qyolo("bench", tiny_folder, "--rounds", 3, "--image", photos / "photo00.jpg")
    assert (ran.code, ran.err) == (0, "")
    for word in ("80x60", "fp32", "int8", "p99"):
        assert word in ran.out
