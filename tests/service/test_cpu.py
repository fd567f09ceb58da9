import os
from pathlib import Path

import pytest

from service.cpu import cpu_fingerprint, usable_threads

ALLOWED = len(os.sched_getaffinity(0))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def threads(root: Path, own: str = "0::/\n") -> int:
    write(root / "own", own)
    return usable_threads(root, root / "own")


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000", ALLOWED),
        ("100000 100000", 1),
        ("150000 100000", 1),  # rounded down
        ("50000 100000", 1),  # at least one
        ("6400000 100000", ALLOWED),  # no more than the affinity allows
        ("garbage", ALLOWED),
    ],
)
def test_cgroup_v2(tmp_path, cpu_max, expected):
    write(tmp_path / "cpu.max", cpu_max)
    assert threads(tmp_path) == expected


@pytest.mark.parametrize(
    ("quota", "expected"), [("-1", ALLOWED), ("100000", 1), ("199999", 1), ("x", ALLOWED)]
)
def test_cgroup_v1(tmp_path, quota, expected):
    write(tmp_path / "cpu" / "cpu.cfs_quota_us", quota)
    write(tmp_path / "cpu" / "cpu.cfs_period_us", "100000")
    assert threads(tmp_path, "3:cpu,cpuacct:/\n") == expected


def test_the_tightest_ancestor_counts(tmp_path):
    write(tmp_path / "cpu.max", "max 100000")
    write(tmp_path / "a" / "cpu.max", "100000 100000")
    write(tmp_path / "a" / "b" / "cpu.max", "400000 100000")
    assert threads(tmp_path, "0::/a/b\n") == 1


def test_a_nested_v1_group_counts(tmp_path):
    write(tmp_path / "cpu,cpuacct" / "docker" / "x" / "cpu.cfs_quota_us", "100000")
    write(tmp_path / "cpu,cpuacct" / "docker" / "x" / "cpu.cfs_period_us", "100000")
    assert threads(tmp_path, "4:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n") == 1


def test_without_cgroups_the_affinity_counts(tmp_path):
    assert usable_threads(tmp_path, tmp_path / "missing") == ALLOWED


def test_the_fingerprint_is_stable():
    assert cpu_fingerprint() == cpu_fingerprint()
    assert len(cpu_fingerprint()) == 16
