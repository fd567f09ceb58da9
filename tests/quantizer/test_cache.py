import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import onnx
import pytest

from quantizer.cache import build_key, check_target, lookup, obtain, publish
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.errors import BadOption, NoCalibrationImages, UnsupportedModel
from service.manifest import read_manifest, write_manifest
from tests.fakes import manifest_of
from tests.quantizer.boxes import LAPTOP, RTX_4090, box
from tests.tiny_models import save_tiny, yolov5

KEY = "0123456789abcdef01234567"
PATIENCE_S = 30.0


class Builds:
    """Writes a small model folder and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, folder: Path) -> None:
        self.count += 1
        write_folder(folder, f"build {self.count}")


def write_folder(folder: Path, text: str = "engine") -> None:
    (folder / "fp32").mkdir()
    (folder / "fp32" / "model.onnx").write_text(text)
    write_manifest(folder, manifest_of("fp32"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


# ------------------------------------------------------------------------------------ the key


@pytest.fixture
def config(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for index in range(3):
        (images / f"{index}.jpg").write_bytes(bytes([index]) * 10)
    (tmp_path / "names.txt").write_text("cat\ndog\nbird\n")
    return BuildConfig(save_tiny(tmp_path, "yolov5"), images, classes=tmp_path / "names.txt")


def append_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


CHANGES: dict[str, Callable[[BuildConfig], object]] = {
    "the model's bytes": lambda r: append_to(r.model),
    "an image's bytes": lambda r: append_to(r.calibration / "1.jpg"),
    "one image more": lambda r: (r.calibration / "9.png").write_bytes(b"x"),
    "one image less": lambda r: (r.calibration / "2.jpg").unlink(),
    "the class names": lambda r: append_to(r.classes),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_key_follows_the_content_of(change, config):
    before = build_key(config)
    change(config)
    assert build_key(config) != before


OPTIONS = {
    "size": 320,
    "ranges": "minmax",
    "symmetric": True,
    "bias_correction": False,
    "head": "yolov5",
    "preprocess": "yolox",
    "classes": None,
    "keep_float": ("stem",),
    "min_sqnr": 15.0,
    "max_drop": 0.02,
    "default": "fp32",
    "runtime": "onnxruntime",
}


@pytest.mark.parametrize(("name", "value"), OPTIONS.items(), ids=OPTIONS)
def test_the_key_follows_the_option(name, value, config):
    assert build_key(replace(config, **{name: value})) != build_key(config)


def test_the_key_follows_external_data(tmp_path, config):
    path = tmp_path / "big.onnx"
    onnx.save(yolov5(), path, save_as_external_data=True, location="big.onnx.data")
    config = replace(config, model=path)
    before = build_key(config)
    data = bytearray((tmp_path / "big.onnx.data").read_bytes())
    data[5] ^= 1
    (tmp_path / "big.onnx.data").write_bytes(data)
    assert build_key(config) != before


def test_the_key_follows_the_annotated_images(config, tmp_path):
    annotations = tmp_path / "truth.json"
    annotations.write_text("{}")
    config = replace(config, truth=AnnotatedDataset(config.calibration, annotations))
    keys = [build_key(replace(config, truth=None)), build_key(config)]
    annotations.write_text('{"images": []}')
    keys.append(build_key(config))
    assert len(set(keys)) == 3


def test_the_key_ignores_where_things_lie_and_how_old_they_are(config, tmp_path):
    before = build_key(config)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    images = config.calibration.rename(elsewhere / "pictures")
    model = config.model.rename(elsewhere / config.model.name)
    classes = config.classes.rename(elsewhere / "classes.txt")
    for path in (model, classes, *images.iterdir()):
        os.utime(path, (1, 1))
    assert build_key(replace(config, model=model, calibration=images, classes=classes)) == before


def test_the_key_ignores_the_names_of_the_images_and_other_files(config):
    before = build_key(config)
    (config.calibration / "1.jpg").rename(config.calibration / "z.jpg")
    (config.calibration / "notes.txt").write_text("these are images")
    assert build_key(config) == before


def test_the_key_ignores_threads_and_how_the_runtime_is_asked_for(config):
    before = build_key(config, LAPTOP)
    assert build_key(replace(config, threads=3), LAPTOP) == before
    assert build_key(replace(config, runtime="openvino"), LAPTOP) == before
    assert build_key(replace(config, device="cpu"), LAPTOP) == before


def test_the_key_follows_what_compiles_and_for_which_gpu(config):
    other = replace(RTX_4090, name="NVIDIA H100 80GB HBM3", compute_capability="9.0")
    boxes = [
        LAPTOP,
        box(RTX_4090, tensorrt="10.16.1.11"),
        box(RTX_4090, tensorrt="11.4.0.106"),
        box(RTX_4090, onnxruntime_cuda="1.31.1"),
        box(other, tensorrt="10.16.1.11"),
    ]
    assert len({build_key(config, hardware) for hardware in boxes}) == len(boxes)


def test_the_key_ignores_a_gpu_that_is_not_built_for(config):
    config = replace(config, device="cpu")
    assert build_key(config, LAPTOP) == build_key(config, box(RTX_4090, tensorrt="10.16.1.11"))


def test_the_key_ignores_where_a_gpu_sits_and_its_driver(config):
    moved = replace(RTX_4090, index=3, driver="590.1")
    keys = {build_key(config, box(gpu, tensorrt="10.16.1.11")) for gpu in (RTX_4090, moved)}
    assert len(keys) == 1


@pytest.mark.parametrize("name", ["yolo[v5].onnx", "y*.onnx", "über modell.onnx"])
def test_odd_file_names_have_a_key(name, config):
    model = config.model.rename(config.model.with_name(name))
    assert len(build_key(replace(config, model=model))) == 24


def test_what_is_missing_has_no_key(config, tmp_path):
    with pytest.raises(UnsupportedModel, match=r"absent\.onnx"):
        build_key(replace(config, model=tmp_path / "absent.onnx"))
    with pytest.raises(NoCalibrationImages, match="absent"):
        build_key(replace(config, calibration=tmp_path / "absent"))
    with pytest.raises(BadOption, match=r"absent\.txt"):
        build_key(replace(config, classes=tmp_path / "absent.txt"))
    with pytest.raises(BadOption, match="--device gpu"):
        build_key(replace(config, device="gpu"), LAPTOP)


# ------------------------------------------------------------------------------------ entries


def test_an_entry_is_built_once(tmp_path):
    builds = Builds()
    first, second = (obtain(tmp_path / "cache", KEY, builds) for _ in range(2))
    assert first == second == lookup(tmp_path / "cache", KEY)
    assert builds.count == 1
    assert read_manifest(first).name == "tiny"


def test_an_empty_cache_has_no_entry(tmp_path):
    assert lookup(tmp_path / "absent", KEY) is None


def test_keys_have_entries_of_their_own(tmp_path):
    builds = Builds()
    assert obtain(tmp_path, KEY, builds) != obtain(tmp_path, KEY[::-1], builds)
    assert builds.count == 2


def test_a_rebuild_replaces_a_whole_entry(tmp_path):
    builds = Builds()
    obtain(tmp_path, KEY, builds)
    entry = obtain(tmp_path, KEY, builds, rebuild=True)
    assert (entry / "fp32" / "model.onnx").read_text() == "build 2"


@pytest.mark.parametrize("name", ["manifest.json", "checksums.sha256", "fp32/model.onnx"])
@pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
def test_a_damaged_entry_is_rebuilt(name, damage, tmp_path, caplog):
    builds = Builds()
    path = obtain(tmp_path, KEY, builds) / name
    match damage:
        case "changed":
            path.write_bytes(b"?" + path.read_bytes()[1:])
        case "cut":
            path.write_bytes(path.read_bytes()[:-1] if "sha256" not in name else b"")
        case "removed":
            path.unlink()
    assert lookup(tmp_path, KEY) is None
    assert "damaged" in caplog.text
    entry = obtain(tmp_path, KEY, builds)
    assert builds.count == 2
    read_manifest(entry)


def test_a_file_that_the_build_did_not_write_is_damage_too(tmp_path):
    builds = Builds()
    (obtain(tmp_path, KEY, builds) / "extra").write_text("")
    obtain(tmp_path, KEY, builds)
    assert builds.count == 2


def test_every_file_of_a_real_build_is_checked(tiny_folder, tmp_path):
    """Whatever single file is damaged, the entry is not served."""
    files = [path for path in tiny_folder.rglob("*") if path.is_file()]
    # Manifest, checksums, two reports and the Q/DQ graph, and three files of each engine.
    assert len(files) == 5 + 3 * len(read_manifest(tiny_folder).variants)
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(b"?" + whole[1:])
        assert lookup(tiny_folder.parent, tiny_folder.name) is None, path
        path.write_bytes(whole)
    assert lookup(tiny_folder.parent, tiny_folder.name) == tiny_folder


def test_what_a_killed_build_left_is_cleared(tmp_path):
    staging = tmp_path / f"{KEY}.new"
    (staging / "fp32").mkdir(parents=True)
    (staging / "fp32" / "model.onnx").write_text("half")
    assert lookup(tmp_path, KEY) is None
    entry = obtain(tmp_path, KEY, Builds())
    assert (entry / "fp32" / "model.onnx").read_text() == "build 1"
    assert names(tmp_path) <= {KEY, f"{KEY}.lock"}


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        write_folder(folder)
        raise UnsupportedModel("no")

    with pytest.raises(UnsupportedModel):
        obtain(tmp_path, KEY, fail)
    assert names(tmp_path) <= {f"{KEY}.lock"}
    builds = Builds()
    obtain(tmp_path, KEY, builds)  # and the lock is free
    assert builds.count == 1


def test_a_rebuild_that_fails_leaves_the_entry(tmp_path):
    def fail(folder: Path) -> None:
        raise UnsupportedModel("no")

    obtain(tmp_path, KEY, Builds())
    with pytest.raises(UnsupportedModel):
        obtain(tmp_path, KEY, fail, rebuild=True)
    assert lookup(tmp_path, KEY) is not None


# ---------------------------------------------------------------------------- several processes


def slow_build(folder: Path) -> None:
    """Takes a while, and writes down that it ran."""
    with (folder.parent.parent / "log").open("a") as log:
        log.write("built\n")
    time.sleep(0.5)
    write_folder(folder)


def obtain_slowly(root: Path, log: Path) -> None:
    def say() -> None:
        with log.open("a") as file:
            file.write("waited\n")

    entry = obtain(root, KEY, slow_build, on_wait=say)
    read_manifest(entry)


def stuck_build(folder: Path) -> None:
    (folder / "half").write_text("written")
    time.sleep(600)


def obtain_stuck(root: Path) -> None:
    obtain(root, KEY, stuck_build)


def test_two_processes_that_want_the_same_build_it_once(tmp_path):
    root, log = tmp_path / "cache", tmp_path / "log"
    spawn = get_context("spawn")
    children = [spawn.Process(target=obtain_slowly, args=(root, log)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE_S)
    assert [child.exitcode for child in children] == [0, 0]
    lines = log.read_text().split()
    assert lines.count("built") == 1
    assert lines.count("waited") <= 1  # the second may come when the first has finished
    assert lookup(root, KEY) is not None


def test_a_build_that_is_killed_leaves_no_entry_and_the_next_one_works(tmp_path):
    child = get_context("spawn").Process(target=obtain_stuck, args=(tmp_path,))
    child.start()
    wait_for((tmp_path / f"{KEY}.new" / "half").exists)
    os.kill(child.pid, signal.SIGKILL)
    child.join(PATIENCE_S)
    assert lookup(tmp_path, KEY) is None
    builds = Builds()
    entry = obtain(tmp_path, KEY, builds)
    assert (builds.count, names(entry)) == (1, {"fp32", "manifest.json", "checksums.sha256"})
    assert names(tmp_path) <= {KEY, f"{KEY}.lock"}


# ---------------------------------------------------------------------------------- publishing


def test_publishing_makes_the_folders_on_the_way(tmp_path):
    target = tmp_path / "deep" / "er"
    publish(target, Builds())
    assert read_manifest(target).name == "tiny"
    assert names(tmp_path / "deep") == {"er"}


def test_publishing_replaces_a_model_folder_as_a_whole(tmp_path):
    target = tmp_path / "model"
    builds = Builds()
    publish(target, builds)
    seen: list[str] = []

    def build(folder: Path) -> None:
        builds(folder)
        seen.append((target / "fp32" / "model.onnx").read_text())  # still the old one

    publish(target, build)
    assert seen == ["build 1"]
    assert (target / "fp32" / "model.onnx").read_text() == "build 2"
    assert names(tmp_path) == {"model"}


def test_a_failed_build_leaves_the_target_as_it_was(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise UnsupportedModel("no")

    publish(tmp_path / "model", Builds())
    with pytest.raises(UnsupportedModel):
        publish(tmp_path / "model", fail)
    assert (tmp_path / "model" / "fp32" / "model.onnx").read_text() == "build 1"
    assert names(tmp_path) == {"model"}


def test_an_absent_an_empty_and_a_model_folder_are_good_targets(tmp_path):
    check_target(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")
    publish(tmp_path / "model", Builds())
    check_target(tmp_path / "model")


def test_a_folder_with_other_things_is_no_target(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadOption, match="holds other things"):
        check_target(tmp_path)
    with pytest.raises(BadOption, match="is a file"):
        check_target(tmp_path / "thesis.tex")
