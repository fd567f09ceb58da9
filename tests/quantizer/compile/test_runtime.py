from dataclasses import replace

import pytest

from quantizer.compile.hardware import Missing
from quantizer.compile.runtime import choose_runtime
from quantizer.errors import BadOption
from service.engines.intel import IntelDevice
from tests.quantizer.machines import GTX_1080, H100, LAPTOP, NO_DRIVER, RTX_4090, machine

SERVER = machine(RTX_4090, tensorrt="10.16.1.11", onnxruntime_cuda="1.31.1")
NO_OPENVINO = Missing("is not installed: pip install openvino")
NO_ONNXRUNTIME = Missing("is not installed: pip install onnxruntime")
BROKEN = Missing("does not load: libnvinfer.so.10: cannot open shared object file")
BARE_GPU = machine(RTX_4090)
BROKEN_TENSORRT = machine(RTX_4090, tensorrt=BROKEN)
ONNXRUNTIME_ON_GPU = machine(RTX_4090, onnxruntime_cuda="1.31.1")
ONNXRUNTIME_ON_CPU = machine(NO_DRIVER, openvino=NO_OPENVINO)


@pytest.mark.parametrize(
    ("device", "hardware", "expected"),
    [
        ("auto", SERVER, "tensorrt"),
        ("auto", ONNXRUNTIME_ON_GPU, "onnxruntime-cuda"),
        ("auto", BROKEN_TENSORRT, "openvino"),
        ("auto", machine(RTX_4090, tensorrt=BROKEN, tensorrt_rtx="1.7.1"), "tensorrt-rtx"),
        ("auto", machine(RTX_4090, tensorrt="10.16.1.11", tensorrt_rtx="1.7.1"), "tensorrt"),
        ("auto", machine(RTX_4090, onnxruntime_cuda="1.31.1", tensorrt_rtx="1"), "tensorrt-rtx"),
        ("auto", machine(H100, tensorrt_rtx="1.7.1"), "openvino"),
        ("auto", machine(NO_DRIVER, tensorrt="10.16.1.11"), "openvino"),
        ("auto", machine(GTX_1080, tensorrt="10.16.1.11"), "openvino"),
        ("auto", machine(GTX_1080, tensorrt="10.1", onnxruntime_cuda="1.31.1"), "onnxruntime-cuda"),
        ("auto", LAPTOP, "openvino"),
        ("auto", ONNXRUNTIME_ON_CPU, "onnxruntime"),
        ("gpu", SERVER, "tensorrt"),
        ("gpu", ONNXRUNTIME_ON_GPU, "onnxruntime-cuda"),
        ("cpu", SERVER, "openvino"),
        ("cpu", machine(RTX_4090, tensorrt="10.16.1.11", openvino=NO_OPENVINO), "onnxruntime"),
    ],
)
def test_the_fastest_that_works_is_chosen(device, hardware, expected):
    assert choose_runtime(device, None, hardware).runtime == expected


@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime-cuda", "openvino", "onnxruntime"])
def test_a_runtime_that_works_can_be_requested(runtime):
    choice = choose_runtime("auto", runtime, SERVER)
    assert choice.runtime == runtime
    assert f"runtime {runtime} was requested" in choice.reason
    assert choice.better == ()


@pytest.mark.parametrize(
    ("device", "hardware", "reason"),
    [
        ("auto", SERVER, "TensorRT: NVIDIA GeForce RTX 4090 (compute capability 8.9) is here"),
        (
            "auto",
            LAPTOP,
            "OpenVINO: no GPU can be used (no NVIDIA driver here), and the processor has AVX-VNNI",
        ),
        (
            "auto",
            BARE_GPU,
            "OpenVINO: no runtime works on NVIDIA GeForce RTX 4090 (compute capability 8.9), "
            "and the processor has AVX-VNNI",
        ),
        ("cpu", SERVER, "OpenVINO: the fastest on device cpu, and the processor has AVX-VNNI"),
    ],
)
def test_the_reason_for_a_runtime_names_the_hardware(device, hardware, reason):
    assert choose_runtime(device, None, hardware).reason == reason


@pytest.mark.parametrize(
    ("device", "hardware", "better"),
    [
        ("auto", SERVER, []),
        ("auto", LAPTOP, ["to use a GPU, install the driver"]),
        (
            "auto",
            ONNXRUNTIME_ON_CPU,
            [
                "to use a GPU, install the driver",
                "OpenVINO is not installed: pip install openvino",
            ],
        ),
        (
            "auto",
            BARE_GPU,
            [
                "NVIDIA GeForce RTX 4090 is here, but TensorRT is not installed: "
                "pip install tensorrt",
                "NVIDIA GeForce RTX 4090 is here, but TensorRT for RTX is not installed: "
                "pip install tensorrt-rtx",
            ],
        ),
        (
            "gpu",
            machine(RTX_4090, tensorrt=BROKEN, tensorrt_rtx="1.7.1"),
            [
                "NVIDIA GeForce RTX 4090 is here, but TensorRT does not load: "
                "libnvinfer.so.10: cannot open shared object file"
            ],
        ),
        (  # TensorRT for RTX does not compile for this GPU
            "auto",
            machine(H100, tensorrt_rtx="1.7.1"),
            [
                "NVIDIA H100 80GB HBM3 is here, but TensorRT is not installed: "
                "pip install tensorrt",
            ],
        ),
        (  # TensorRT does not support this GPU
            "auto",
            machine(GTX_1080),
            [
                "NVIDIA GeForce GTX 1080 is here, but ONNX Runtime on CUDA is not installed: "
                "pip install onnxruntime-gpu"
            ],
        ),
        ("auto", machine(GTX_1080, onnxruntime_cuda="1.31.1"), []),
        ("cpu", BARE_GPU, []),
    ],
)
def test_what_a_faster_runtime_would_need_is_listed(device, hardware, better):
    assert list(choose_runtime(device, None, hardware).better) == better


@pytest.mark.parametrize(
    ("device", "runtime", "hardware", "words"),
    [
        ("gpu", None, LAPTOP, ["device gpu", "no NVIDIA driver here", "install the driver"]),
        ("gpu", "tensorrt", LAPTOP, ["runtime tensorrt", "no NVIDIA driver here"]),
        ("auto", "onnxruntime-cuda", LAPTOP, ["runtime onnxruntime-cuda", "no NVIDIA driver"]),
        (
            "gpu",
            None,
            BARE_GPU,
            ["device gpu", "pip install tensorrt", "pip install onnxruntime-gpu"],
        ),
        ("auto", "tensorrt", BROKEN_TENSORRT, ["TensorRT does not load", "libnv"]),
        ("auto", "tensorrt", machine(GTX_1080, tensorrt="10.1"), ["GTX 1080", "6.1", "7.5"]),
        ("auto", "tensorrt-rtx", machine(H100, tensorrt_rtx="1.7.1"), ["H100", "9.0", "sm89"]),
        ("cpu", "tensorrt", SERVER, ["runtime tensorrt", "device cpu", "leave out one"]),
        ("gpu", "openvino", SERVER, ["runtime openvino", "device gpu", "leave out one"]),
        (
            "auto",
            "openvino",
            ONNXRUNTIME_ON_CPU,
            ["runtime openvino: OpenVINO is not installed: pip install openvino"],
        ),
        (
            "cpu",
            None,
            machine(NO_DRIVER, openvino=NO_OPENVINO, onnxruntime=NO_ONNXRUNTIME),
            ["device cpu", "pip install openvino", "pip install onnxruntime"],
        ),
    ],
)
def test_options_for_which_no_runtime_works_are_refused(device, runtime, hardware, words):
    with pytest.raises(BadOption) as refused:
        choose_runtime(device, runtime, hardware)
    for word in words:
        assert word in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


BUILD_SERVER = machine(NO_DRIVER, tensorrt_rtx="1.7.1")


def test_for_a_gpu_elsewhere_the_runtime_is_the_one_that_needs_none():
    choice = choose_runtime("gpu", None, BUILD_SERVER, ("sm75", "sm89"))
    assert choice.runtime == "tensorrt-rtx"
    assert choice.reason == "TensorRT for RTX: it compiles for sm75 and sm89 without a GPU"


@pytest.mark.parametrize(
    ("device", "runtime", "hardware", "words"),
    [
        ("cpu", None, BUILD_SERVER, "leave out --device cpu"),
        ("gpu", "tensorrt", BUILD_SERVER, "tensorrt compiles only for the machine it runs on"),
        ("gpu", None, LAPTOP, "TensorRT for RTX is not installed: pip install tensorrt-rtx"),
    ],
)
def test_a_gpu_elsewhere_needs_tensorrt_for_rtx(device, runtime, hardware, words):
    with pytest.raises(BadOption, match=words) as refused:
        choose_runtime(device, runtime, hardware, ("sm89",))
    assert refused.value.field == "target"


def test_a_reason_that_two_runtimes_share_is_given_once():
    with pytest.raises(BadOption) as refused:
        choose_runtime("gpu", None, LAPTOP)
    assert str(refused.value).count("no NVIDIA driver here") == 1


INTEL = replace(LAPTOP, intel=LAPTOP.intel | {"intel-gpu": IntelDevice(file="/dev/dri/renderD128")})


def test_an_intel_gpu_is_used_by_openvino_where_it_is_asked_for():
    assert choose_runtime("intel-gpu", None, INTEL).runtime == "openvino"
    assert "/dev/dri/renderD128" in choose_runtime("intel-gpu", "openvino", INTEL).reason
    chosen = choose_runtime("auto", None, INTEL)
    assert "for better" not in chosen.reason
    assert any("--device intel-gpu" in line for line in chosen.better)
    assert not choose_runtime("cpu", None, INTEL).better


@pytest.mark.parametrize(
    ("device", "runtime", "hardware", "words"),
    [
        ("intel-npu", None, INTEL, "intel-npu: no Intel NPU here: modprobe intel_vpu"),
        ("intel-gpu", None, LAPTOP, "intel-gpu: no Intel GPU here: modprobe i915"),
        ("intel-gpu", "onnxruntime", INTEL, "onnxruntime does not run on intel-gpu"),
        (
            "intel-gpu",
            None,
            replace(INTEL, runtimes={**INTEL.runtimes, "openvino": NO_OPENVINO}),
            "pip install openvino",
        ),
    ],
)
def test_an_intel_device_that_cannot_be_used_is_an_error(device, runtime, hardware, words):
    with pytest.raises(BadOption) as caught:
        choose_runtime(device, runtime, hardware)
    assert words in str(caught.value)
