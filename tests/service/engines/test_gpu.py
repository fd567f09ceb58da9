"""find_gpu in a process of its own: the real pynvml on a fake of the driver's library."""

import ctypes.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from service.engines.gpu import Gpu, NoGpu, find_gpu
from tests.nvml import GPU_UUID, MIG_UUID, compile_nvml

# A line with settings -> a line with what a new process with them finds: a fork, because most of
# the time of an interpreter goes into imports.
LOOK = """
import json, os, sys
from dataclasses import asdict
from service.engines.gpu import find_gpu
for line in sys.stdin:
    if (child := os.fork()) == 0:
        os.environ.update(json.loads(line))
        print(json.dumps(asdict(find_gpu())), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
Look = Callable[..., Gpu | NoGpu]
RTX = Gpu("NVIDIA GeForce RTX 4090", "8.9", 24564, "580.65.06", 0)
H100 = Gpu("NVIDIA H100 80GB HBM3", "9.0", 81559, "580.65.06", 1)
SLICE = Gpu("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "9.0", 9984, "580.65.06", 1)


@pytest.fixture(scope="module")
def look(tmp_path_factory) -> Iterator[Look]:
    """What a process with these settings finds."""
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(compile_nvml(tmp_path_factory.mktemp("nvml")))
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    with subprocess.Popen(
        [sys.executable, "-c", LOOK],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def ask(**settings: object) -> Gpu | NoGpu:
            process.stdin.write(json.dumps({name: str(each) for name, each in settings.items()}))
            process.stdin.write("\n")
            process.stdin.flush()
            found = json.loads(process.stdout.readline())
            return Gpu(**found) if "name" in found else NoGpu(**found)

        yield ask
        process.stdin.close()


def test_the_first_gpu_is_found_and_the_driver_shut_down(look, tmp_path):
    log = tmp_path / "log"
    assert look(NVML_LOG=log) == RTX
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
def test_cuda_visible_devices_selects_the_gpu(look, visible, expected):
    assert look(CUDA_VISIBLE_DEVICES=visible) == expected


@pytest.mark.parametrize("visible", ["", "-1,0"])
def test_cuda_visible_devices_can_hide_every_gpu(look, visible):
    found = look(CUDA_VISIBLE_DEVICES=visible)
    assert found.reason == "CUDA_VISIBLE_DEVICES hides every GPU: unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize("visible", ["2", "-2", "MIG-1"])
def test_an_unknown_gpu_is_reported_with_the_known_ones(look, visible):
    found = look(CUDA_VISIBLE_DEVICES=visible)
    assert found.problem == f"CUDA_VISIBLE_DEVICES names {visible}, but there is no such GPU"
    assert "0 to 1" in found.remedy


def test_a_driver_without_a_gpu_is_reported(look):
    found = look(NVML_GPUS=0)
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
def test_each_driver_error_has_a_remedy(look, code, problem, remedy):
    found = look(nvmlInitWithFlags=code)
    assert problem in found.problem
    assert remedy in found.remedy


@pytest.mark.parametrize("function", ["nvmlDeviceGetCount_v2", "nvmlDeviceGetIndex"])  # first, last
def test_a_failing_driver_call_is_reported_and_the_driver_shut_down(look, function, tmp_path):
    log = tmp_path / "log"
    found = look(NVML_LOG=log, **{function: 15})
    assert found.problem == "the GPU does not respond"
    called = log.read_text().split()
    assert called[0] == "nvmlInitWithFlags"
    assert called[-2:] == [function, "nvmlShutdown"]


@pytest.mark.skipif(
    ctypes.util.find_library("nvidia-ml") is not None, reason="an NVIDIA driver is installed here"
)
def test_without_a_driver_the_reason_has_a_remedy(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = find_gpu()
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
