"""`qyolo models`, and builds of models by their name, from a mirror on loopback."""

import json

import pytest

from tests.qyolo.commands import inline, on_terminal
from tests.tiny_models import save_tiny
from tests.zoo.web import serving
from zoo.catalogue import catalogue

SMALL = ("--size", 64, "--runtime", "onnxruntime")  # which compiles in a fifth of the time


@pytest.fixture
def tiny(tmp_path):
    return save_tiny(tmp_path, "yolov8").read_bytes()


@pytest.fixture
def web(tiny):
    with serving({"/yolov8s.onnx": tiny, "/yolox_nano.onnx": tiny}) as web:
        yield web


def build(web, tmp_path, *arguments):
    settings = {"QYOLO_CACHE_DIR": tmp_path / "cache", "QYOLO_MIRROR": web.url}
    return inline("build", *arguments, *SMALL, **settings)


def test_the_catalogue_as_a_table(tmp_path):
    ran = inline("models", QYOLO_CACHE_DIR=tmp_path)
    assert ran.code == 0
    for model in catalogue():
        assert f"│ {model.name} " in ran.out
    assert "AGPL-3.0 *" in ran.out


def test_the_catalogue_as_json_has_the_state_of_each_file(tmp_path):
    store = tmp_path / "models"
    store.mkdir()
    (store / "yolox_s.onnx").touch()
    listed = json.loads(inline("models", "--json", QYOLO_CACHE_DIR=tmp_path).out)
    states = {model["name"]: model["file"] for model in listed}
    assert set(states) == {model.name for model in catalogue()}
    assert states["yolox_s"] == "here"
    assert states["yolox_nano"] == "checksum known"
    assert states["yolov5n"] == "export it yourself"
    assert states["yolov8s"] == "--trust-on-first-use"


def test_a_name_is_downloaded_built_and_kept(web, tmp_path):
    first = build(web, tmp_path, "yolov8s", "--trust-on-first-use")
    assert first.code == 0, first.err
    assert "yolov8s by Ultralytics, licence AGPL-3.0" in first.err
    assert "you must offer them the complete source" in first.err
    again = build(web, tmp_path, "yolov8s")
    assert again.out == first.out
    assert "AGPL" not in again.err
    assert web.asked == [""]


def test_the_progress_of_download_and_build_is_shown_on_a_terminal(web, tiny, photos, tmp_path):
    arguments = ("build", "yolov8s", "--trust-on-first-use", *SMALL, "--calibration", photos)
    settings = {"QYOLO_CACHE_DIR": tmp_path / "cache", "QYOLO_MIRROR": web.url}
    shown = on_terminal(*arguments, **settings)
    size = f"{len(tiny) / 1e6:.1f}"
    for text in ("download", f"{size}/{size} MB", "calibrate", "17/17", "compile", "compare"):
        assert text in shown


def test_without_trust_nothing_is_downloaded(web, tmp_path):
    ran = build(web, tmp_path, "yolov8s")
    assert (ran.code, ran.out) == (2, "")
    assert "--trust-on-first-use" in ran.err
    assert web.asked == []


def test_another_file_than_the_published_one_is_refused(web, tmp_path):
    ran = build(web, tmp_path, "yolox_nano")
    assert (ran.code, ran.out) == (2, "")
    assert "has the SHA-256" in ran.err
    assert ran.err.endswith(": not used\n")
    assert not (tmp_path / "cache" / "models" / "yolox_nano.onnx").exists()


def test_offline_the_message_says_where_to_put_which_file(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.download.PAUSE_S", 0)
    settings = {"QYOLO_CACHE_DIR": tmp_path, "QYOLO_MIRROR": "http://127.0.0.1:9"}
    ran = inline("up", "yolox_tiny", **settings)
    assert (ran.code, ran.out) == (2, "")
    assert "http://127.0.0.1:9/yolox_tiny.onnx cannot be downloaded" in ran.err
    assert str(tmp_path / "models" / "yolox_tiny.onnx") in ran.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yolov5n", ["yolov5n", "pickle", "python export.py --weights yolov5n.pt"]),
        ("yolox-s", ["yolox-s", "did you mean", "yolox_s"]),
    ],
)
def test_a_name_that_gives_no_file_says_what_to_do(name, words, tmp_path):
    ran = inline("build", name, QYOLO_CACHE_DIR=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    for word in words:
        assert word in ran.err
