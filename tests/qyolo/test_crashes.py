"""The cache after kill -9 and on a full disk: the next start is as good as the first.

tests/service/test_folder_cache.py tests what processes do to an entry, and damaged ones.
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
from tests.qyolo.commands import Ran, Running, gone, inline, qyolo, running, wait_for

ENTRY = "[0-9a-f]" * KEY_LENGTH
FUTURE = 4e9  # in the year 2096


def entry_of(cache: Path) -> Path:
    (entry,) = cache.glob(ENTRY)
    return entry


def folders_in(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.is_dir()}


def assert_serves(server: Running, image: bytes) -> None:
    server.wait_until_ready()
    assert server.detect(image)["model"] == "yolov5"
    assert "Traceback" not in server.err


def assert_one_line(ran: Ran, *texts: str) -> None:
    """Exit code 2 and one line of ours: an error that the user can fix."""
    assert ran.code == 2, ran.err
    assert "Traceback" not in ran.err
    (line,) = (each for each in ran.err.splitlines() if each.startswith("qyolo: "))
    for text in texts:
        assert text in line


# -------------------------------------------------------------------------------------- kill -9


def test_a_build_ends_when_its_server_is_killed_and_the_next_one_completes(tiny_build, tmp_path):
    with running("up", *tiny_build, QYOLO_CACHE_DIR=tmp_path) as server:
        wait_for(lambda: any(tmp_path.glob("*.new/fp32")))
        builds = server.builds()
        server.stop(signal.SIGKILL)
        wait_for(lambda: all(map(gone, builds)))
    assert list(tmp_path.glob(ENTRY)) == []
    assert inline("build", *tiny_build, QYOLO_CACHE_DIR=tmp_path).code == 0
    read_manifest(entry_of(tmp_path))
    assert folders_in(tmp_path) == {entry_of(tmp_path).name}


def test_a_server_after_a_killed_one_builds_nothing(tiny_build, cache, image):
    before = entry_of(cache).stat()
    for signum, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)):
        with running("up", *tiny_build, QYOLO_CACHE_DIR=cache) as server:
            assert_serves(server, image)
            assert server.builds() == []
            assert server.stop(signum) == code
    after = entry_of(cache).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_crash_between_the_two_renames_of_a_rebuild_is_repaired(tiny_build, cache):
    """The old entry is renamed already, the new one is not in its place yet."""
    entry = entry_of(cache)
    shutil.copytree(entry, entry.with_name(f"{entry.name}.new"))
    entry.rename(entry.with_name(f"{entry.name}.old"))
    ran = inline("build", *tiny_build, QYOLO_CACHE_DIR=cache)
    assert ran.out.strip() == str(entry)
    read_manifest(entry)
    assert folders_in(cache) == {entry.name}


@pytest.mark.parametrize("state", ["a crash before the old entry is deleted", "a clock set back"])
def test_an_entry_is_used_after(state, tiny_build, cache):
    entry = entry_of(cache)
    if state == "a clock set back":  # the entry and its lock seem to be of the future
        for path in (cache, *cache.rglob("*")):
            os.utime(path, (FUTURE, FUTURE))
    else:
        (entry.with_name(f"{entry.name}.old") / "fp32").mkdir(parents=True)
        (entry.with_name(f"{entry.name}.new") / "int8").mkdir(parents=True)
    inode = entry.stat().st_ino
    ran = inline("build", *tiny_build, QYOLO_CACHE_DIR=cache)
    assert (ran.code, ran.out.strip(), ran.err) == (0, str(entry), "")
    assert entry.stat().st_ino == inode


# ---------------------------------------------------------------------------------------- disks


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """Mount something on the folder, or skip the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *arguments, folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"may not mount: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_one_line_and_nothing_half_written(tiny_build, tmp_path):
    cache = tmp_path / "cache"
    with mounted(cache, "-t", "tmpfs", "-o", "size=100k", "qyolo-test"):
        ran = qyolo("up", *tiny_build, "--port", 0, QYOLO_CACHE_DIR=cache)
        assert_one_line(ran, "No space left")
        assert folders_in(cache) == set()
        subprocess.run(["mount", "-o", "remount,size=50m", cache], check=True)
        assert inline("build", *tiny_build, QYOLO_CACHE_DIR=cache).code == 0
        read_manifest(entry_of(cache))


def test_a_read_only_cache_serves_its_entries(tiny_build, cache, image, tmp_path):
    fixed = tmp_path / "fixed"
    with mounted(fixed, "--bind", str(cache)):
        subprocess.run(["mount", "-o", "remount,bind,ro", fixed], check=True)
        with running("up", *tiny_build, QYOLO_CACHE_DIR=fixed) as server:
            assert_serves(server, image)
        ran = qyolo("up", *tiny_build, "--size", 96, "--port", 0, QYOLO_CACHE_DIR=fixed)
        assert_one_line(ran, "Read-only", str(fixed))
