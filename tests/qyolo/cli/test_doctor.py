"""`qyolo doctor` on this box, and on it with a stand-in for a driver and for TensorRT."""

import ctypes.util
import json
from importlib.metadata import version

import pytest

from service.engines.cpu import read_cpu, usable_threads
from tests.nvml import compile_nvml
from tests.qyolo.commands import ESCAPE, qyolo

driverless = pytest.mark.skipif(
    ctypes.util.find_library("nvidia-ml") is not None, reason="an NVIDIA driver is installed here"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> dict[str, object]:
    """Settings that put an RTX 4090 into this box."""
    library = compile_nvml(tmp_path_factory.mktemp("nvml"))
    return {"LD_LIBRARY_PATH": library, "CUDA_VISIBLE_DEVICES": "0"}


@pytest.fixture(scope="module")
def tensorrt(tmp_path_factory) -> dict[str, object]:
    """Settings that install a TensorRT which imports."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "tensorrt.py").write_text("__version__ = '10.16.1.11'\n")
    return {"PYTHONPATH": folder}


def doctor(*arguments: object, **settings: object) -> dict:
    ran = qyolo("doctor", "--json", *arguments, **settings)
    assert (ran.code, ran.err) == (0, ""), ran.err
    return json.loads(ran.out)


def test_the_help_names_the_options():
    text = ESCAPE.sub("", qyolo("doctor", "--help").out)
    for option in ("--device", "--runtime", "--json", "QYOLO_DEVICE"):
        assert option in text


@driverless
def test_a_box_without_a_gpu_takes_openvino():
    found = doctor()
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
def test_the_same_for_people():
    ran = qyolo("doctor")
    assert (ran.code, ran.err) == (0, "")
    for words in (
        read_cpu().model,
        "no NVIDIA driver here: install the driver",
        f"│ openvino         │ {version('openvino')}",
        "a build takes OpenVINO: ",
        "for better: to use a GPU, install the driver",
    ):
        assert words in ran.out


def test_a_gpu_and_tensorrt_are_taken(driver, tensorrt):
    found = doctor(**driver, **tensorrt)
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


def test_a_gpu_is_described_for_people(driver, tensorrt):
    ran = qyolo("doctor", **driver, **tensorrt)
    for words in (
        "NVIDIA GeForce RTX 4090, compute capability 8.9, 24564 MiB, driver 580.65.06, index 0",
        "│ tensorrt         │ 10.16.1.11 ",
        "a build takes TensorRT: NVIDIA GeForce RTX 4090",
    ):
        assert words in ran.out
    assert "for better" not in ran.out


def test_a_gpu_without_tensorrt_says_how_to_install_it(driver, tmp_path):
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open')")
    ran = qyolo("doctor", **driver, PYTHONPATH=tmp_path)
    assert ran.code == 0
    assert (
        "for better: NVIDIA GeForce RTX 4090 is here, but TensorRT does not load: "
        "libnvinfer.so.10: cannot open"
    ) in ran.out


@driverless
def test_brackets_are_shown_as_they_are():
    assert "pip install 'qyolo[gpu]'" in qyolo("doctor").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "gpu"], "--device gpu: no NVIDIA driver here: install the driver"),
        (["--runtime", "tensorrt"], "--runtime tensorrt: no NVIDIA driver here"),
        (["--device", "cpu", "--runtime", "tensorrt"], "--runtime tensorrt runs on the GPU"),
    ],
)
@driverless
def test_what_cannot_work_is_exit_code_two_and_a_reason(arguments, words):
    ran = qyolo("doctor", *arguments)
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith(f"qyolo: {words}")
    assert read_cpu().model in ran.out
    assert "a build takes" not in ran.out


@driverless
def test_the_environment_asks_for_a_device_too():
    ran = qyolo("doctor", "--json", QYOLO_DEVICE="gpu")
    assert ran.code == 2
    found = json.loads(ran.out)
    assert found["choice"] is None
    assert found["refusal"].startswith("--device gpu: no NVIDIA driver here")
    assert found["refusal"] in ran.err


def test_what_can_work_is_exit_code_zero(driver, tensorrt):
    for arguments, runtime in (
        (["--device", "gpu"], "tensorrt"),
        (["--device", "cpu"], "openvino"),
        (["--runtime", "onnxruntime"], "onnxruntime"),
    ):
        assert doctor(*arguments, **driver, **tensorrt)["choice"]["runtime"] == runtime


def test_a_hidden_gpu_is_not_taken(driver, tensorrt):
    settings = driver | tensorrt | {"CUDA_VISIBLE_DEVICES": ""}
    choice = doctor(**settings)["choice"]
    assert choice["runtime"] == "openvino"
    assert choice["better"] == ["to use a GPU, unset CUDA_VISIBLE_DEVICES"]
