"""CPU and memory limits of this process, and the instruction sets of the CPU."""

import hashlib
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
CPUINFO = Path("/proc/cpuinfo")

# Instruction sets for fast int8 and 16-bit floats: the flag in /proc/cpuinfo -> its name.
FEATURES: Final = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
    "asimddp": "Neon dot product",
    "i8mm": "Neon int8 matrix product",
    "bf16": "Neon BF16",
    "asimdhp": "Neon FP16",
}
INT8_FLAGS: Final = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
UNLIMITED: Final = 1 << 62  # bytes: cgroup v1 gives a number above this for no limit


@dataclass(frozen=True, slots=True)
class Cpu:
    """The name of a CPU, and which of FEATURES it has."""

    model: str
    features: tuple[str, ...]
    x86: bool = False

    @property
    def int8_features(self) -> tuple[str, ...]:
        """Those that multiply int8 and add the products in one instruction."""
        names = [FEATURES[flag] for flag in INT8_FLAGS]
        return tuple(feature for feature in self.features if feature in names)

    @property
    def int8_saturates(self) -> bool:
        """Whether int8 kernels use VPMADDUBSW, which adds two products in 16 bits and saturates.

        The products of a u8 and a weight of 7 bits never reach the limit.
        """
        return self.x86 and not self.int8_features


def usable_threads(cgroup_root: Path = CGROUP_ROOT, own_cgroup: Path = OWN_CGROUP) -> int:
    """Threads that can run at once: the CPU affinity, and the cgroup quota rounded down; >= 1.

    Runtimes size their thread pools from the cores of the host. Under a quota, all threads then
    wait for the scheduler's next period (OpenVINO issue 37838).
    """
    allowed = len(os.sched_getaffinity(0))
    folders = _cgroup_folders(cgroup_root, own_cgroup, "cpu", "cpu,cpuacct")
    quotas = (quota for folder in folders if (quota := _cpu_quota(folder)) is not None)
    return max(1, min(allowed, int(min(quotas, default=allowed))))


def memory_limit_mib(cgroup_root: Path = CGROUP_ROOT, own_cgroup: Path = OWN_CGROUP) -> int | None:
    """The lowest memory limit of this process's cgroup and its ancestors; None without one."""
    folders = _cgroup_folders(cgroup_root, own_cgroup, "memory")
    files = (
        folder / name for folder in folders for name in ("memory.max", "memory.limit_in_bytes")
    )
    limits = (limit for file in files for limit in _integers(file) if limit < UNLIMITED)
    return min((limit >> 20 for limit in limits), default=None)


def _cpu_quota(folder: Path) -> float | None:
    """CPUs that a cgroup may use (v2's file, then v1's two); None without a quota."""
    v2 = _integers(folder / "cpu.max")
    v1 = _integers(folder / "cpu.cfs_quota_us") + _integers(folder / "cpu.cfs_period_us")
    for numbers in (v2, v1):
        if len(numbers) == 2 and numbers[0] > 0:
            return numbers[0] / numbers[1]
    return None


def _integers(path: Path) -> list[int]:
    """The integers in a file; none if it is missing or has other content, such as `max`."""
    try:
        return [int(word) for word in _text(path).split()]
    except ValueError:
        return []


def _text(path: Path) -> str:
    """The content of a file, empty if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _cgroup_folders(root: Path, own: Path, controller: str, *mounts: str) -> list[Path]:
    """This process's groups and their ancestors; `mounts`: v1's other names for the controller."""
    folders = [root, *(root / name for name in (controller, *mounts))]
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        base = root / controllers if controller in controllers.split(",") else root
        relative = Path(path.lstrip("/"))
        folders += [base / part for part in (relative, *relative.parents)]
    return folders


def read_cpu(cpuinfo: Path = CPUINFO) -> Cpu:
    """The first core in /proc/cpuinfo."""
    facts: dict[str, str] = {}
    for line in _text(cpuinfo).splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", facts.get("Features", "")).split()
    features = tuple(name for flag, name in FEATURES.items() if flag in flags)
    return Cpu(_model(facts), features, x86="flags" in facts)


def _model(facts: dict[str, str]) -> str:
    """The name of a CPU; on ARM, where the kernel gives none, its implementer and part number."""
    if "model name" in facts:
        return facts["model name"]
    numbers = [f"{key} {facts[key]}" for key in ("CPU implementer", "CPU part") if key in facts]
    return ", ".join([platform.machine(), *numbers])


@cache
def cpu_fingerprint() -> str:
    """A digest of architecture, model and instruction sets, on which compiled blobs depend."""
    relevant = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    facts = sorted({line for line in _text(CPUINFO).splitlines() if line.startswith(relevant)})
    text = "\n".join([platform.machine(), *facts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
