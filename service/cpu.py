"""What this process may use of the processor, and what the processor can do."""

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
CPUINFO = Path("/proc/cpuinfo")


def usable_threads(cgroup_root: Path = CGROUP_ROOT, own_cgroup: Path = OWN_CGROUP) -> int:
    """Threads that can run at once: the affinity mask, and the cgroup quota rounded down.

    Runtimes size their pools from the host's cores; under a quota that makes every thread wait for
    the scheduler's next period (OpenVINO issue 37838). At least 1.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroup_root, own_cgroup)
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def _quota(root: Path, own: Path) -> float | None:
    """The tightest CPU quota of this process's cgroup and its ancestors, in CPUs."""
    quotas = []
    for folder in _cgroup_folders(root, own):
        limit = _v2_limit(folder) or _v1_limit(folder)
        if limit is not None:
            quotas.append(limit)
    return min(quotas, default=None)


def _cgroup_folders(root: Path, own: Path) -> list[Path]:
    folders = [root, root / "cpu", root / "cpu,cpuacct"]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        base = root / controllers if "cpu" in controllers.split(",") else root
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
