import os
import platform
from pathlib import Path

import pytest

from service.engines.cpu import Cpu, cpu_fingerprint, memory_limit_mib, read_cpu, usable_threads

ALLOWED = len(os.sched_getaffinity(0))
NO_LIMIT = "9223372036854771712"  # of memory, in cgroup v1
NESTED_V1 = "4:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n"
V1_QUOTA, V1_PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"
V1_NESTED_CPU, V1_NESTED_MEMORY = "cpu,cpuacct/docker/x", "memory/docker/x"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000"}, ALLOWED),
        ("0::/", {"cpu.max": "150000 100000"}, 1),  # rounded down
        ("0::/", {"cpu.max": "50000 100000"}, 1),  # at least one
        ("0::/", {"cpu.max": "6400000 100000"}, ALLOWED),  # no more than the affinity allows
        ("0::/", {"cpu.max": "garbage"}, ALLOWED),
        ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "400000 100000"}, 1),
        ("3:cpu,cpuacct:/", {f"cpu/{V1_QUOTA}": "-1", f"cpu/{V1_PERIOD}": "100000"}, ALLOWED),
        ("3:cpu,cpuacct:/", {f"cpu/{V1_QUOTA}": "199999", f"cpu/{V1_PERIOD}": "100000"}, 1),
        ("3:cpu,cpuacct:/", {f"cpu/{V1_QUOTA}": "x", f"cpu/{V1_PERIOD}": "100000"}, ALLOWED),
        (
            NESTED_V1,
            {f"{V1_NESTED_CPU}/{V1_QUOTA}": "1000", f"{V1_NESTED_CPU}/{V1_PERIOD}": "1000"},
            1,
        ),
        (None, {}, ALLOWED),
    ],
)
def test_the_lowest_quota_of_the_own_cgroup_and_its_ancestors_limits_the_threads(
    own, files, expected, tmp_path
):
    for name, text in (files if own is None else files | {"own": own}).items():
        write(tmp_path / name, text)
    assert usable_threads(tmp_path, tmp_path / "own") == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"memory.max": "max\n"}, None),
        ("0::/", {"memory.max": "2147483647\n"}, 2047),
        ("0::/", {"memory.max": "garbage"}, None),
        ("0::/a/b", {"a/memory.max": "1073741824", "a/b/memory.max": "max"}, 1024),
        ("0::/a", {"other/memory.max": "1048576"}, None),
        (NESTED_V1, {f"{V1_NESTED_MEMORY}/memory.limit_in_bytes": NO_LIMIT}, None),
        (NESTED_V1, {f"{V1_NESTED_MEMORY}/memory.limit_in_bytes": "536870912"}, 512),
        (None, {}, None),
    ],
)
def test_the_lowest_memory_limit_of_the_own_cgroup_and_its_ancestors(
    own, files, expected, tmp_path
):
    for name, text in (files if own is None else files | {"own": own}).items():
        write(tmp_path / name, text)
    assert memory_limit_mib(tmp_path, tmp_path / "own") == expected


def test_the_fingerprint_is_stable():
    assert cpu_fingerprint() == cpu_fingerprint()
    assert len(cpu_fingerprint()) == 16


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
GRAVITON3 = """\
processor\t: 0
Features\t: fp asimd fphp asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


@pytest.mark.parametrize(
    ("cpuinfo", "model", "features", "int8"),
    [
        (
            SAPPHIRE_RAPIDS,
            "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "AVX2, AVX-512 VNNI, AVX-512 BF16, AVX-512 FP16, AMX int8, AMX bf16",
            "AVX-512 VNNI, AMX int8",
        ),
        (ALDER_LAKE, "12th Gen Intel(R) Core(TM) i7-12700H", "AVX2, AVX-VNNI", "AVX-VNNI"),
        (
            GRAVITON3,
            f"{platform.machine()}, CPU implementer 0x41, CPU part 0xd40",
            "Neon dot product, Neon int8 matrix product, Neon BF16, Neon FP16",
            "Neon dot product, Neon int8 matrix product",
        ),
        ("", platform.machine(), "", ""),
    ],
)
def test_a_cpu_has_the_name_and_the_instruction_sets_of_its_first_core(
    cpuinfo, model, features, int8, tmp_path
):
    write(tmp_path / "cpuinfo", cpuinfo)
    cpu = read_cpu(tmp_path / "cpuinfo")
    assert cpu.model == model
    assert ", ".join(cpu.features) == features
    assert ", ".join(cpu.int8_features) == int8


def test_without_cpuinfo_the_architecture_is_the_name(tmp_path):
    assert read_cpu(tmp_path / "missing") == Cpu(platform.machine(), ())
