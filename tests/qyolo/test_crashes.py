"""kill -9, a full disk and what else happens to a cache: the next start is as good as the first.

What one process does to its own entries is in
tests/service/test_folder_cache.py; two servers that start
at once, and an entry that is damaged and built anew, in test_serving.py.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.folder_cache import KEY_LENGTH
from service.manifest import read_manifest
from tests.qyolo.commands import Ran, Running, qyolo, running, wait_for
from tests.tiny_models import save_tiny

ENTRY = "[0-9a-f]" * KEY_LENGTH
# What lies in the cache when a build has begun, and when it has compiled its first engine.
MOMENTS = ("*.new", "*.new/*/model.xml")
FUTURE = 4e9  # in the year 2096


@pytest.fixture(scope="module")
def command(tmp_path_factory, photos) -> tuple[object, ...]:
    """What builds the tiny model, behind the name of the command."""
    model = save_tiny(tmp_path_factory.mktemp("model"), "yolov5")
    return (model, "--calibration", photos, "--size", 64)


@pytest.fixture(scope="module")
def image(photos) -> bytes:
    return (photos / "photo00.jpg").read_bytes()


@pytest.fixture(scope="module")
def killed(tmp_path_factory, command) -> Path:
    """A cache in which builds were killed, with their servers, at several moments."""
    cache = tmp_path_factory.mktemp("killed")
    for moment in MOMENTS:
        with running("up", *command, QYOLO_CACHE_DIR=cache) as server:
            wait_for(lambda: any(cache.glob(moment)))  # noqa: B023
            for pid in (server.process.pid, *server.builds()):
                os.kill(pid, signal.SIGKILL)
    return cache


@pytest.fixture(scope="module")
def built(killed, command) -> Path:
    """The same with its one entry, for it is built again; tests copy it."""
    assert qyolo("build", *command, QYOLO_CACHE_DIR=killed).code == 0
    return killed


@pytest.fixture
def cache(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "cache"))


def entry_of(cache: Path) -> Path:
    (entry,) = cache.glob(ENTRY)
    return entry


def assert_serves(server: Running, image: bytes) -> None:
    server.wait_until_ready()
    assert server.detect(image)["model"] == "yolov5"
    assert "Traceback" not in server.err


def assert_serves_what_is_there(command: tuple[object, ...], cache: Path, image: bytes) -> None:
    """Without a build, and without touching the entry."""
    entry = entry_of(cache)
    inode = entry.stat().st_ino
    with running("up", *command, QYOLO_CACHE_DIR=cache) as server:
        assert_serves(server, image)
    assert entry.stat().st_ino == inode


def assert_told(ran: Ran, *texts: str) -> None:
    """One line and exit code 2: something that the user can mend."""
    assert ran.code == 2, ran.err
    assert "Traceback" not in ran.err
    (line,) = (each for each in ran.err.splitlines() if each.startswith("qyolo: "))
    for text in texts:
        assert text in line


# -------------------------------------------------------------------------------------- kill -9


def test_builds_that_are_killed_leave_no_entry(killed):
    assert list(killed.glob(ENTRY)) == []
    assert len(list(killed.glob("*.new"))) == 1  # the last one's, which the next clears


def test_a_build_after_them_is_whole_and_served(command, cache, image):
    read_manifest(entry_of(cache))
    assert {path.name for path in cache.iterdir() if path.is_dir()} == {entry_of(cache).name}
    assert_serves_what_is_there(command, cache, image)


def test_a_server_that_is_killed_comes_back_with_what_it_had(command, cache, image):
    with running("up", *command, QYOLO_CACHE_DIR=cache) as server:
        assert_serves(server, image)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    assert_serves_what_is_there(command, cache, image)


def test_a_crash_between_the_two_renames_of_a_rebuild_is_mended(command, cache, image):
    """The old entry is aside already, the new one not in its place yet."""
    entry = entry_of(cache)
    shutil.copytree(entry, entry.with_name(f"{entry.name}.new"))
    entry.rename(entry.with_name(f"{entry.name}.old"))
    with running("up", *command, QYOLO_CACHE_DIR=cache) as server:
        assert_serves(server, image)
    assert {path.name for path in cache.iterdir() if path.is_dir()} == {entry.name}


def test_a_crash_before_the_old_entry_is_cleared_is_in_nobodys_way(command, cache, image):
    entry = entry_of(cache)
    (entry.with_name(f"{entry.name}.old") / "fp32").mkdir(parents=True)
    (entry.with_name(f"{entry.name}.new") / "int8").mkdir(parents=True)
    assert_serves_what_is_there(command, cache, image)


# ---------------------------------------------------------------------------------------- disks


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """Something mounted on this folder, if we may."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *arguments, folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"may not mount: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_one_line_and_nothing_half_written(command, tmp_path):
    cache = tmp_path / "cache"
    with mounted(cache, "-t", "tmpfs", "-o", "size=100k", "qyolo-test"):
        assert_told(qyolo("up", *command, "--port", 0, QYOLO_CACHE_DIR=cache), "No space left")
        assert [path for path in cache.iterdir() if path.is_dir()] == []
        subprocess.run(["mount", "-o", "remount,size=50m", cache], check=True)
        assert qyolo("build", *command, QYOLO_CACHE_DIR=cache).code == 0
        read_manifest(entry_of(cache))


def test_a_cache_that_may_not_be_written_serves_what_it_has(command, cache, image, tmp_path):
    fixed = tmp_path / "fixed"
    with mounted(fixed, "--bind", str(cache)):
        subprocess.run(["mount", "-o", "remount,bind,ro", fixed], check=True)
        assert_serves_what_is_there(command, fixed, image)
        other = (*command[:-1], 96)
        assert_told(
            qyolo("up", *other, "--port", 0, QYOLO_CACHE_DIR=fixed), "Read-only", str(fixed)
        )


# --------------------------------------------------------------------------------------- damage


def test_serve_refuses_an_entry_with_one_changed_bit(cache):
    entry = entry_of(cache)
    variant = read_manifest(entry).variants["int8"]
    for name in ("manifest.json", variant.model, variant.blob):
        path = entry / name
        whole = path.read_bytes()
        half = len(whole) // 2
        path.write_bytes(whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :])
        assert_told(qyolo("serve", entry, "--port", 0), "corrupt", name)
        path.write_bytes(whole)


def test_a_clock_that_was_set_back_changes_nothing(command, cache, image):
    """The entry seems to be of the future, so does its lock."""
    for path in (cache, *cache.rglob("*")):
        os.utime(path, (FUTURE, FUTURE))
    assert_serves_what_is_there(command, cache, image)
