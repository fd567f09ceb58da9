"""What this process may use of the processor and the memory, and what the processor can do."""

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

# What makes int8 and 16-bit floats fast: the kernel's word for it, and the maker's.
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
SUMS_INT8: Final = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
UNLIMITED: Final = 1 << 62  # bytes: cgroup v1 has no word for it and tells a number above this


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor: its name, and what it has of FEATURES."""

    model: str
    features: tuple[str, ...]

    @property
    def int8_features(self) -> tuple[str, ...]:
        """Those that multiply int8 and sum the products in one instruction."""
        names = [FEATURES[flag] for flag in SUMS_INT8]
        return tuple(each for each in self.features if each in names)


def usable_threads(cgroup_root: Path = CGROUP_ROOT, own_cgroup: Path = OWN_CGROUP) -> int:
    """Threads that can run at once: the affinity mask, and the cgroup quota rounded down.

    Runtimes size their pools from the host's cores; under a quota that makes every thread wait for
    the scheduler's next period (OpenVINO issue 37838). At least 1.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroup_root, own_cgroup)
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def memory_limit_mib(cgroup_root: Path = CGROUP_ROOT, own_cgroup: Path = OWN_CGROUP) -> int | None:
    """The tightest memory limit of this process's cgroup and its ancestors; None without one."""
    limits = []
    for folder in _cgroup_folders(cgroup_root, own_cgroup, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # v2, v1
            limit = _bytes(folder / name)
            if limit is not None and limit < UNLIMITED:
                limits.append(limit >> 20)
    return min(limits, default=None)


def _bytes(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _quota(root: Path, own: Path) -> float | None:
    """The tightest CPU quota of this process's cgroup and its ancestors, in CPUs."""
    quotas = []
    for folder in _cgroup_folders(root, own, "cpu", "cpu,cpuacct"):
        limit = _v2_limit(folder) or _v1_limit(folder)
        if limit is not None:
            quotas.append(limit)
    return min(quotas, default=None)


def _cgroup_folders(root: Path, own: Path, controller: str, *mounts: str) -> list[Path]:
    """This process's groups and their ancestors; `mounts`: v1's other names for the controller."""
    folders = [root, *(root / name for name in (controller, *mounts))]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        base = root / controllers if controller in controllers.split(",") else root
        relative = Path(path.lstrip("/"))
        folders += [base / part for part in (relative, *relative.parents)]
    return folders


def _v2_limit(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _v1_limit(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None


def read_cpu(cpuinfo: Path = CPUINFO) -> Cpu:
    """As the kernel tells it of the first core."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", facts.get("Features", "")).split()
    return Cpu(_model(facts), tuple(name for flag, name in FEATURES.items() if flag in flags))


def _model(facts: dict[str, str]) -> str:
    """On ARM the kernel gives numbers in place of a name."""
    if "model name" in facts:
        return facts["model name"]
    numbers = [f"{key} {facts[key]}" for key in ("CPU implementer", "CPU part") if key in facts]
    return ", ".join([platform.machine(), *numbers])


@cache
def cpu_fingerprint() -> str:
    """A short digest of the architecture, model and instruction sets: what a compiled blob and a
    choice of precision depend on."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    telling = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    facts = sorted({line for line in lines if line.startswith(telling)})
    text = "\n".join([platform.machine(), *facts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
