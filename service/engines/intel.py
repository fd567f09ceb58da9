"""Intel's GPU and NPU: their device files on Linux, and what keeps this process from them."""

import grp
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# By the value of --device.
OPENVINO_NAMES: Final[Mapping[str, str]] = {"intel-gpu": "GPU", "intel-npu": "NPU"}
VENDOR: Final = "0x8086"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the kernel shows a kind of device, and what its driver needs."""

    title: str
    folder: str
    files: str  # as a shell pattern
    modules: str
    packages: str  # the command that installs OpenVINO's side of the driver


PLACES: Final[Mapping[str, Place]] = {
    "intel-gpu": Place(
        title="Intel GPU",
        folder="dri",
        files="renderD*",
        modules="modprobe i915, or modprobe xe for GPUs since 2024",
        packages="sudo apt install intel-opencl-icd libze1",
    ),
    "intel-npu": Place(
        title="Intel NPU",
        folder="accel",
        files="accel*",
        modules="modprobe intel_vpu (Linux 6.6 or newer)",
        packages="sudo apt install ./intel-*.deb ./libze1*.deb with the files of a release of "
        "https://github.com/intel/linux-npu-driver",
    ),
}
SYSFS: Final = {"dri": "drm", "accel": "accel"}


@dataclass(frozen=True, slots=True)
class IntelDevice:
    """The device file that this process may open; or the problem, and what to do about it."""

    file: str = ""
    problem: str = ""
    remedy: str = ""

    @property
    def reason(self) -> str:
        """Problem and remedy on one line."""
        return f"{self.problem}: {self.remedy}"


def find_intel(kind: str, root: Path = Path("/")) -> IntelDevice:
    """The first device of a kind, as `--device` names it, that this process may open; never raises.

    Whether OpenVINO has a driver for it shows only when OpenVINO lists its devices.
    """
    place = PLACES[kind]
    files = sorted((root / "dev" / place.folder).glob(place.files))
    files = [file for file in files if _vendor(file, root) in ("", VENDOR)]
    if not files:
        return IntelDevice(
            problem=f"no {place.title} here (/dev/{place.folder}/{place.files})",
            remedy=f"on the host {place.modules}; a container needs docker run "
            f"--device /dev/{place.folder}",
        )
    errors = {}
    for file in files:
        try:
            os.close(os.open(file, os.O_RDWR))
        except OSError as exc:
            errors[file] = exc
        else:
            return IntelDevice(file=str(file))
    file, error = next(iter(errors.items()))
    number = file.stat().st_gid
    return IntelDevice(
        problem=f"{file} cannot be opened ({error.strerror})",
        remedy=f"sudo usermod -aG {_group(number)} $USER, then log in again; a container needs "
        f"docker run --device /dev/{place.folder} --group-add {number}",
    )


def _vendor(file: Path, root: Path) -> str:
    """The PCI vendor of a device file; empty if the kernel does not show it."""
    path = root / "sys/class" / SYSFS[file.parent.name] / file.name / "device/vendor"
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
