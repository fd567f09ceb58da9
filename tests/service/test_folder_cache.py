import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Event

import pytest

from service.folder_cache import lookup, obtain, publish
from service.manifest import read_manifest, write_manifest
from tests.fakes import manifest_of
from tests.waiting import wait_until

KEY = "0123456789abcdef01234567"
WAIT_LIMIT_S = 30.0


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


def test_each_key_has_an_entry_that_is_built_once(tmp_path):
    builds = Builds()
    assert lookup(tmp_path / "cache", KEY) is None
    first, second = (obtain(tmp_path / "cache", KEY, builds) for _ in range(2))
    assert first == second == lookup(tmp_path / "cache", KEY)
    assert builds.count == 1
    assert read_manifest(first).name == "tiny"
    assert obtain(tmp_path / "cache", KEY[::-1], builds) != first
    assert builds.count == 2


def test_a_damaged_entry_is_rebuilt(tmp_path, caplog):
    """tests/service/test_manifest.py has every kind of damage."""
    builds = Builds()
    entry = obtain(tmp_path, KEY, builds)
    (entry / "fp32" / "model.onnx").write_text("?")
    assert lookup(tmp_path, KEY) is None
    assert "damaged" in caplog.text
    read_manifest(obtain(tmp_path, KEY, builds))
    assert builds.count == 2


def test_every_file_of_a_real_build_is_checked(tiny_folder):
    # Manifest, two reports and the Q/DQ graph; each engine's two graphs of two files, its blob, and
    # what its graph leaves to the server.
    checksums = (tiny_folder / "checksums.sha256").read_text().splitlines()
    assert len(checksums) == 4 + 6 * len(read_manifest(tiny_folder).variants)


def fail(folder: Path) -> None:
    write_folder(folder, "half")
    raise ValueError("no")


def test_a_build_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no"):
        obtain(tmp_path, KEY, fail)
    assert names(tmp_path) <= {f"{KEY}.lock"}
    obtain(tmp_path, KEY, Builds())  # the lock is free


def test_a_second_process_waits_for_the_first_and_takes_its_entry(tmp_path):
    """Two threads stand for the processes: each has a file handle of its own, which is locked."""
    builds, second_waits = Builds(), Event()

    def build(folder: Path) -> None:
        assert second_waits.wait(WAIT_LIMIT_S)
        builds(folder)

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(obtain, tmp_path, KEY, build, False, second_waits.set) for _ in "12"]
    assert {call.result() for call in calls} == {lookup(tmp_path, KEY)}
    assert builds.count == 1


def stuck_build(folder: Path) -> None:
    (folder / "half").write_text("written")
    time.sleep(600)


def test_a_build_that_is_killed_leaves_no_entry_and_the_next_one_works(tmp_path):
    child = get_context("spawn").Process(target=obtain, args=(tmp_path, KEY, stuck_build))
    child.start()
    wait_until((tmp_path / f"{KEY}.new" / "half").exists, WAIT_LIMIT_S)
    os.kill(child.pid, signal.SIGKILL)
    child.join(WAIT_LIMIT_S)
    assert lookup(tmp_path, KEY) is None
    builds = Builds()
    entry = obtain(tmp_path, KEY, builds)
    assert (builds.count, names(entry)) == (1, {"fp32", "manifest.json", "checksums.sha256"})
    assert names(tmp_path) <= {KEY, f"{KEY}.lock"}


def test_publishing_replaces_a_model_folder_completely(tmp_path):
    target = tmp_path / "deep" / "model"  # parent folders are made
    builds = Builds()
    publish(target, builds)
    seen: list[str] = []

    def build(folder: Path) -> None:
        builds(folder)
        seen.append((target / "fp32" / "model.onnx").read_text())  # still the old one

    publish(target, build)
    assert seen == ["build 1"]
    assert (target / "fp32" / "model.onnx").read_text() == "build 2"
    assert names(target.parent) == {"model"}


def test_a_rebuild_replaces_an_entry_unless_it_fails(tmp_path):
    builds = Builds()
    for _ in range(2):
        entry = obtain(tmp_path, KEY, builds, rebuild=True)
    with pytest.raises(ValueError, match="no"):
        obtain(tmp_path, KEY, fail, rebuild=True)
    assert lookup(tmp_path, KEY) == entry
    assert (entry / "fp32" / "model.onnx").read_text() == "build 2"
    assert names(tmp_path) <= {KEY, f"{KEY}.lock"}
