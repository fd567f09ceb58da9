import os
import platform
from pathlib import Path

import pytest

from service.engines.cpu import Cpu, cpu_fingerprint, memory_limit_mib, read_cpu, usable_threads

ALLOWED = len(os.sched_getaffinity(0))
NESTED_V1 = "4:cpu,cpuacct:/docker/x\n2:memory:/docker/x"


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
def test_the_quota_of_cgroup_v2(tmp_path, cpu_max, expected):
    write(tmp_path / "cpu.max", cpu_max)
    assert threads(tmp_path) == expected


@pytest.mark.parametrize(
    ("quota", "expected"), [("-1", ALLOWED), ("100000", 1), ("199999", 1), ("x", ALLOWED)]
)
def test_the_quota_of_cgroup_v1(tmp_path, quota, expected):
    for folder, own in (("cpu", "3:cpu,cpuacct:/"), ("cpu,cpuacct/docker/x", NESTED_V1)):
        root = tmp_path / folder.replace("/", "-")
        write(root / folder / "cpu.cfs_quota_us", quota)
        write(root / folder / "cpu.cfs_period_us", "100000")
        assert threads(root, f"{own}\n") == expected


def test_the_lowest_quota_of_the_ancestors_counts(tmp_path):
    write(tmp_path / "cpu.max", "max 100000")
    write(tmp_path / "a" / "cpu.max", "100000 100000")
    write(tmp_path / "a" / "b" / "cpu.max", "400000 100000")
    assert threads(tmp_path, "0::/a/b\n") == 1


def test_without_cgroups_only_the_affinity_limits_the_threads(tmp_path):
    assert usable_threads(tmp_path, tmp_path / "missing") == ALLOWED
    assert memory_limit_mib(tmp_path, tmp_path / "missing") is None


def test_the_fingerprint_is_stable():
    assert cpu_fingerprint() == cpu_fingerprint()
    assert len(cpu_fingerprint()) == 16


def memory(root: Path, own: str = "0::/\n") -> int | None:
    write(root / "own", own)
    return memory_limit_mib(root, root / "own")


@pytest.mark.parametrize(
    ("memory_max", "expected"),
    [("max", None), ("2147483648", 2048), ("2147483647", 2047), ("garbage", None)],
)
def test_the_memory_limit_of_cgroup_v2(tmp_path, memory_max, expected):
    write(tmp_path / "memory.max", f"{memory_max}\n")
    assert memory(tmp_path) == expected


@pytest.mark.parametrize(
    ("limit", "expected"), [("9223372036854771712", None), ("536870912", 512), ("x", None)]
)
def test_the_memory_limit_of_cgroup_v1(tmp_path, limit, expected):
    write(tmp_path / "memory" / "docker" / "x" / "memory.limit_in_bytes", limit)
    write(tmp_path / "memory" / "memory.limit_in_bytes", "9223372036854771712")
    assert memory(tmp_path, "4:cpu,cpuacct:/other\n2:memory:/docker/x\n") == expected


def test_the_lowest_memory_limit_of_the_ancestors_counts(tmp_path):
    write(tmp_path / "a" / "memory.max", "1073741824")
    write(tmp_path / "a" / "b" / "memory.max", "max")
    write(tmp_path / "other" / "memory.max", "1048576")
    assert memory(tmp_path, "0::/a/b\n") == 1024


SAPPHIRE_RAPIDS = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_bf16 avx512_vnni amx_bf16 avx512_fp16 amx_tile amx_int8

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ALDER_LAKE = """\
model name\t: 12th Gen Intel(R) Core(TM) i7-12700H
flags\t\t: fpu avx2 avx_vnni
"""
HASWELL = """\
model name\t: Intel(R) Core(TM) i7-4770
flags\t\t: fpu avx2
"""
GRAVITON3 = """\
processor\t: 0
Features\t: fp asimd fphp asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


@pytest.mark.parametrize(
    ("cpuinfo", "features", "int8"),
    [
        (
            SAPPHIRE_RAPIDS,
            "AVX2, AVX-512 VNNI, AVX-512 BF16, AVX-512 FP16, AMX int8, AMX bf16",
            "AVX-512 VNNI, AMX int8",
        ),
        (ALDER_LAKE, "AVX2, AVX-VNNI", "AVX-VNNI"),
        (HASWELL, "AVX2", ""),
        (
            GRAVITON3,
            "Neon dot product, Neon int8 matrix product, Neon BF16, Neon FP16",
            "Neon dot product, Neon int8 matrix product",
        ),
        ("", "", ""),
    ],
)
def test_the_instruction_sets_of_a_cpu_are_found(cpuinfo, features, int8, tmp_path):
    write(tmp_path / "cpuinfo", cpuinfo)
    cpu = read_cpu(tmp_path / "cpuinfo")
    assert ", ".join(cpu.features) == features
    assert ", ".join(cpu.int8_features) == int8


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        (SAPPHIRE_RAPIDS, "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"),
        (GRAVITON3, f"{platform.machine()}, CPU implementer 0x41, CPU part 0xd40"),
    ],
)
def test_a_cpu_is_named_by_its_first_core_or_on_arm_by_numbers(cpuinfo, model, tmp_path):
    write(tmp_path / "cpuinfo", cpuinfo)
    assert read_cpu(tmp_path / "cpuinfo").model == model


def test_without_cpuinfo_the_architecture_is_the_name(tmp_path):
    assert read_cpu(tmp_path / "missing") == Cpu(platform.machine(), ())
