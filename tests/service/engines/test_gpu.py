"""find_gpu in a process of its own: the real pynvml on a fake of the driver's library."""

import ctypes.util
import json
import os
from pathlib import Path

import pytest

from service.engines.gpu import Gpu, NoGpu
from tests.nvml import GPU_UUID, MIG_UUID, compile_nvml
from tests.processes import run_python

LOOK = """
import json
from dataclasses import asdict
from service.engines.gpu import find_gpu
print(json.dumps(asdict(find_gpu())))
"""
RTX = Gpu("NVIDIA GeForce RTX 4090", "8.9", 24564, "580.65.06", 0)
H100 = Gpu("NVIDIA H100 80GB HBM3", "9.0", 81559, "580.65.06", 1)
SLICE = Gpu("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "9.0", 9984, "580.65.06", 1)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return compile_nvml(tmp_path_factory.mktemp("nvml"))


def look(**settings: object) -> Gpu | NoGpu:
    ours = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment = ours | {name: str(value) for name, value in settings.items()}
    found = json.loads(run_python(LOOK, env=environment))
    return Gpu(**found) if "name" in found else NoGpu(**found)


def test_the_first_gpu_is_found_and_the_driver_shut_down(library, tmp_path):
    log = tmp_path / "log"
    assert look(LD_LIBRARY_PATH=library, NVML_LOG=log) == RTX
    called = log.read_text().split()
    assert [called.count("nvmlInitWithFlags"), called.count("nvmlShutdown")] == [1, 1]
    assert called[-1] == "nvmlShutdown"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (" 1 ", H100),
        ("1,0", H100),
        (f"{GPU_UUID},0", H100),
        (MIG_UUID, SLICE),
    ],
)
def test_cuda_visible_devices_selects_the_gpu(library, visible, expected):
    assert look(LD_LIBRARY_PATH=library, CUDA_VISIBLE_DEVICES=visible) == expected


@pytest.mark.parametrize("visible", ["", "-1,0"])
def test_cuda_visible_devices_can_hide_every_gpu(library, visible):
    found = look(LD_LIBRARY_PATH=library, CUDA_VISIBLE_DEVICES=visible)
    assert found.reason == "CUDA_VISIBLE_DEVICES hides every GPU: unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize("visible", ["2", "-2", "MIG-1"])
def test_an_unknown_gpu_is_reported_with_the_known_ones(library, visible):
    found = look(LD_LIBRARY_PATH=library, CUDA_VISIBLE_DEVICES=visible)
    assert found.problem == f"CUDA_VISIBLE_DEVICES names {visible}, but there is no such GPU"
    assert "0 to 1" in found.remedy


def test_a_driver_without_a_gpu_is_reported(library):
    found = look(LD_LIBRARY_PATH=library, NVML_GPUS=0)
    assert found.problem == "the NVIDIA driver sees no GPU"
    assert "--gpus all" in found.remedy


@pytest.mark.parametrize(
    ("code", "problem", "remedy"),
    [
        (4, "this user may not use the GPU", "/dev/nvidia"),
        (9, "the NVIDIA driver is not loaded", "modprobe nvidia; a container needs"),
        (13, "the NVIDIA driver is too old", "install a current one"),
        (15, "the GPU does not respond", "reboot"),
        (18, "have different versions", "reboot"),
        (28, "the NVIDIA driver fails (message of the driver)", "nvidia-smi"),
        (999, "the NVIDIA driver fails (Unknown Error)", "nvidia-smi"),
    ],
)
def test_each_driver_error_has_a_remedy(library, code, problem, remedy):
    found = look(LD_LIBRARY_PATH=library, nvmlInitWithFlags=code)
    assert problem in found.problem
    assert remedy in found.remedy


@pytest.mark.parametrize("function", ["nvmlDeviceGetCount_v2", "nvmlDeviceGetIndex"])  # first, last
def test_a_failing_driver_call_is_reported_and_the_driver_shut_down(library, function, tmp_path):
    log = tmp_path / "log"
    found = look(LD_LIBRARY_PATH=library, NVML_LOG=log, **{function: 15})
    assert found.problem == "the GPU does not respond"
    called = log.read_text().split()
    assert called[0] == "nvmlInitWithFlags"
    assert called[-2:] == [function, "nvmlShutdown"]


@pytest.mark.skipif(
    ctypes.util.find_library("nvidia-ml") is not None, reason="an NVIDIA driver is installed here"
)
def test_without_a_driver_the_reason_has_a_remedy():
    found = look()
    assert found.problem == "no NVIDIA driver here"
    assert "install the driver" in found.reason
    assert "NVIDIA container toolkit and docker run --gpus all" in found.reason


@pytest.mark.parametrize(
    ("gpu", "fingerprint"),
    [
        (RTX, "NVIDIA-GeForce-RTX-4090-sm89"),
        (SLICE, "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb-sm90"),
        (Gpu("NVIDIA RTX 6000 (Blackwell)", "12.0", 1, "", 0), "NVIDIA-RTX-6000-Blackwell-sm120"),
    ],
)
def test_a_fingerprint_can_be_a_file_name(gpu, fingerprint):
    assert gpu.fingerprint == fingerprint
