"""Device files of Intel's GPU and NPU in a root of the test's own."""

import os
import tempfile
from pathlib import Path

import pytest

from service.engines.intel import PLACES, find_intel

NODES = {"intel-gpu": ("dri/renderD128", "drm"), "intel-npu": ("accel/accel0", "accel")}
kinds = pytest.mark.parametrize("kind", PLACES)


@pytest.fixture
def root():
    """Open to every user, as /dev is."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def add(root: Path, kind: str, vendor: str | None = "0x8086", mode: int = 0o660) -> Path:
    name, sysfs = NODES[kind]
    file = root / "dev" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    file.chmod(mode)
    if vendor is not None:
        told = root / "sys/class" / sysfs / file.name / "device/vendor"
        told.parent.mkdir(parents=True)
        told.write_text(f"{vendor}\n")
    return file


@kinds
def test_a_device_that_can_be_opened_is_found(kind, root):
    file = add(root, kind)
    assert find_intel(kind, root).file == str(file)


@kinds
def test_a_container_may_hide_the_vendor(kind, root):
    assert find_intel(kind, root=add(root, kind, vendor=None).parents[2]).file


@kinds
def test_without_a_device_file_the_module_and_the_option_of_docker_are_named(kind, root):
    found = find_intel(kind, root)
    assert found.file == ""
    assert "modprobe" in found.remedy
    assert f"--device /dev/{PLACES[kind].folder}" in found.remedy


@kinds
def test_the_device_of_another_vendor_is_none(kind, root):
    add(root, kind, vendor="0x1002")
    assert "no Intel" in find_intel(kind, root).problem


@kinds
def test_a_device_of_another_group_names_the_group_to_join(kind, root):
    file = add(root, kind, mode=0o600)
    for folder in (root / "dev", file.parent):
        folder.chmod(0o755)
    as_another_user = os.geteuid() == 0
    if as_another_user:
        os.seteuid(65534)
    else:
        file.chmod(0)
    try:
        found = find_intel(kind, root)
    finally:
        if as_another_user:
            os.seteuid(0)
    assert "Permission denied" in found.problem
    assert "sudo usermod -aG " in found.remedy
    assert f"--group-add {file.stat().st_gid}" in found.remedy
