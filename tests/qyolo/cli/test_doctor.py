"""`qyolo doctor` here, on other machines, and with stand-ins for a driver and for TensorRT."""

import ctypes.util
import json
from dataclasses import replace
from importlib.metadata import version

import pytest

from service.engines.cpu import read_cpu, usable_threads
from service.engines.intel import IntelDevice
from tests.nvml import compile_nvml
from tests.quantizer.machines import LAPTOP, RTX_4090, machine
from tests.qyolo.commands import inline, qyolo

driverless = pytest.mark.skipif(
    ctypes.util.find_library("nvidia-ml") is not None, reason="an NVIDIA driver is installed here"
)


@pytest.fixture(scope="module")
def gpu_machine(tmp_path_factory) -> dict[str, object]:
    """Settings that add an RTX 4090, and a TensorRT that can be imported, to this machine."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "tensorrt.py").write_text("__version__ = '10.16.1.11'\n")
    library = compile_nvml(tmp_path_factory.mktemp("nvml"))
    return {"LD_LIBRARY_PATH": library, "CUDA_VISIBLE_DEVICES": "0", "PYTHONPATH": folder}


@pytest.fixture
def on_another_machine(monkeypatch) -> None:
    hardware = machine(RTX_4090, tensorrt="10.16.1.11")
    monkeypatch.setattr("quantizer.compile.hardware.detect", lambda: hardware)


def found_by(run, *arguments: object, **settings: object) -> dict:
    ran = run("doctor", "--json", *arguments, **settings)
    assert (ran.code, ran.err) == (0, ""), ran.err
    return json.loads(ran.out)


@driverless
def test_without_a_gpu_openvino_is_chosen():
    found = found_by(inline)
    hardware = found["hardware"]
    assert hardware["cpu"]["model"] == read_cpu().model
    assert hardware["threads"] == usable_threads()
    assert hardware["gpu"]["problem"] == "no NVIDIA driver here"
    assert hardware["runtimes"]["openvino"] == {"version": version("openvino")}
    choice = found["choice"]
    assert (choice["runtime"], choice["device"]) == ("openvino", "cpu")
    assert choice["reason"].startswith("OpenVINO: no GPU can be used (no NVIDIA driver here)")
    assert any("install the driver" in line for line in choice["better"])
    assert found["refusal"] is None


@driverless
def test_the_hardware_and_the_choice_are_shown_as_a_table():
    ran = inline("doctor")
    assert (ran.code, ran.err) == (0, "")
    for words in (
        read_cpu().model,
        "no NVIDIA driver here: install the driver",
        f"│ openvino         │ {version('openvino')}",
        "a build takes OpenVINO: ",
        "for better: to use a GPU, install the driver",
        "pip install 'qyolo[tensorrt]'",  # brackets are no markup
    ):
        assert words in ran.out


def test_with_a_gpu_tensorrt_is_chosen(gpu_machine):
    found = found_by(qyolo, **gpu_machine)
    assert found["hardware"]["gpu"] == {
        "name": "NVIDIA GeForce RTX 4090",
        "compute_capability": "8.9",
        "memory_mib": 24564,
        "driver": "580.65.06",
        "index": 0,
    }
    assert found["hardware"]["runtimes"]["tensorrt"] == {"version": "10.16.1.11"}
    assert found["choice"] == {
        "device": "gpu",
        "runtime": "tensorrt",
        "reason": "TensorRT: NVIDIA GeForce RTX 4090 (compute capability 8.9) is here",
        "better": [],
    }


def test_a_hidden_gpu_is_not_used(gpu_machine):
    choice = found_by(qyolo, **gpu_machine | {"CUDA_VISIBLE_DEVICES": ""})["choice"]
    assert choice["runtime"] == "openvino"
    assert choice["better"] == ["to use a GPU, unset CUDA_VISIBLE_DEVICES"]


def test_a_gpu_without_tensorrt_says_how_to_install_it(gpu_machine, tmp_path):
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open')")
    ran = qyolo("doctor", **gpu_machine | {"PYTHONPATH": tmp_path})
    assert ran.code == 0
    assert (
        "for better: NVIDIA GeForce RTX 4090 is here, but TensorRT does not load: "
        "libnvinfer.so.10: cannot open"
    ) in ran.out


def test_the_devices_of_openvino_are_listed():
    (cpu, *_) = found_by(inline)["openvino_devices"]
    assert cpu["name"] == "CPU"
    assert cpu["full_name"]
    assert "FP32" in cpu["precisions"]
    assert "│ OpenVINO CPU     │ " + cpu["full_name"] in inline("doctor").out


def test_an_intel_gpu_without_a_driver_names_the_packages(monkeypatch):
    found = {"intel-gpu": IntelDevice(file="/dev/dri/renderD128")}
    hardware = replace(LAPTOP, intel=LAPTOP.intel | found)
    monkeypatch.setattr("quantizer.compile.hardware.detect", lambda: hardware)
    ran = inline("doctor")
    for words in (
        "│ Intel GPU        │ /dev/dri/renderD128",
        "│ Intel NPU        │ no Intel NPU here: modprobe intel_vpu",
        "│ OpenVINO GPU     │ has no driver for it: sudo apt install intel-opencl-icd",
        "for better: an Intel GPU is here, and --device intel-gpu tries it",
    ):
        assert words in ran.out


def test_a_gpu_is_shown_in_the_table(on_another_machine):
    ran = inline("doctor")
    for words in (
        "NVIDIA GeForce RTX 4090, compute capability 8.9, 24564 MiB, driver 580.65.06, index 0",
        "│ tensorrt         │ 10.16.1.11 ",
        "a build takes TensorRT: NVIDIA GeForce RTX 4090",
    ):
        assert words in ran.out
    assert "for better" not in ran.out


@pytest.mark.parametrize(
    ("arguments", "runtime"),
    [
        (["--device", "gpu"], "tensorrt"),
        (["--device", "cpu"], "openvino"),
        (["--runtime", "onnxruntime"], "onnxruntime"),
    ],
)
def test_options_that_work_are_exit_code_zero(arguments, runtime, on_another_machine):
    assert found_by(inline, *arguments)["choice"]["runtime"] == runtime


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "gpu"], "--device gpu: no NVIDIA driver here: install the driver"),
        (["--runtime", "tensorrt"], "--runtime tensorrt: no NVIDIA driver here"),
        (["--device", "intel-npu", "--runtime", "onnxruntime"], "--runtime onnxruntime does not"),
        (["--device", "cpu", "--runtime", "tensorrt"], "--runtime tensorrt runs on the GPU"),
    ],
)
@driverless
def test_options_that_cannot_work_are_exit_code_two_and_a_reason(arguments, words):
    ran = inline("doctor", *arguments)
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith(f"qyolo: {words}")
    assert read_cpu().model in ran.out
    assert "a build takes" not in ran.out


@driverless
def test_the_environment_can_ask_for_a_device():
    ran = inline("doctor", "--json", QYOLO_DEVICE="gpu")
    found = json.loads(ran.out)
    assert (ran.code, found["choice"]) == (2, None)
    assert found["refusal"].startswith("--device gpu: no NVIDIA driver here")
    assert found["refusal"] in ran.err
