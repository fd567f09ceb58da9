"""What is found on this box, and on it with packages that work, break or crash put before ours."""

import ctypes.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from quantizer.compile.hardware import Installed, Missing, RuntimeState, detect
from service.engines.cpu import read_cpu, usable_threads
from service.engines.gpu import NoGpu
from tests.nvml import compile_nvml

LOOK = """
import json, sys
from dataclasses import asdict
from quantizer.compile.hardware import detect
found = asdict(detect())
heavy = {"onnxruntime", "openvino", "tensorrt", "cuda.bindings.runtime"} & set(sys.modules)
print(json.dumps(found | {"heavy": sorted(heavy)}))
"""
NO_LIBRARY = "libnvinfer.so.10: cannot open shared object file: No such file or directory"


def look(*packages: Path, **settings: object) -> dict:
    path = os.pathsep.join(map(str, packages))
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=os.environ | {"PYTHONPATH": path} | {name: str(at) for name, at in settings.items()},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def runtime(name: str, *packages: Path) -> RuntimeState:
    found = look(*packages)["runtimes"][name]
    return Installed(**found) if "version" in found else Missing(**found)


def package(folder: Path, name: str, code: str) -> Path:
    """A folder for PYTHONPATH with a package of that name."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return folder


def test_this_machine():
    found = detect()
    assert (found.cpu, found.threads, found.cores) == (
        read_cpu(),
        usable_threads(),
        os.cpu_count(),
    )
    assert list(found.runtimes) == ["tensorrt", "onnxruntime-cuda", "openvino", "onnxruntime"]
    for name in ("openvino", "onnxruntime"):
        assert found.runtimes[name] == Installed(version(name))


def test_the_machine_is_detected_once():
    assert detect() is detect()


@pytest.mark.skipif(
    ctypes.util.find_library("nvidia-ml") is not None, reason="an NVIDIA driver is installed here"
)
def test_a_machine_without_a_driver_has_no_gpu():
    gpu = detect().gpu
    assert isinstance(gpu, NoGpu)
    assert gpu.problem == "no NVIDIA driver here"


def test_a_gpu_is_found(tmp_path):
    assert look(LD_LIBRARY_PATH=compile_nvml(tmp_path))["gpu"]["name"] == "NVIDIA GeForce RTX 4090"


def test_detection_loads_no_runtime_into_its_own_process(tmp_path):
    tensorrt = package(tmp_path, "tensorrt", "__version__ = '10.16.1.11'")
    assert look(tensorrt)["heavy"] == []


# ----------------------------------------------------------------------------------- TensorRT


def test_tensorrt_that_loads_has_its_own_version(tmp_path):
    works = package(tmp_path, "tensorrt", "print('hello')\n__version__ = '10.16.1.11'")
    assert runtime("tensorrt", works) == Installed("10.16.1.11")


def test_tensorrt_without_its_library_is_told_in_the_words_of_the_loader(tmp_path):
    broken = package(tmp_path, "tensorrt", f"raise ImportError({NO_LIBRARY!r})")
    assert runtime("tensorrt", broken) == Missing(f"does not load: {NO_LIBRARY}")


def test_tensorrt_that_takes_its_process_down_is_survived(tmp_path):
    crashes = package(tmp_path, "tensorrt", "import os; os.kill(os.getpid(), 11)")
    assert runtime("tensorrt", crashes) == Missing("does not load: exit code -11")


def test_tensorrt_needs_cuda_bindings(tmp_path):
    tensorrt = package(tmp_path / "t", "tensorrt", "__version__ = '10.16.1.11'")
    no_bindings = package(tmp_path / "c", "cuda", "")
    assert runtime("tensorrt", tensorrt, no_bindings) == Missing(
        "needs cuda-bindings, which is not installed: pip install 'qyolo[gpu]'"
    )


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_tensorrt_that_is_absent_says_how_to_install_it():
    assert runtime("tensorrt") == Missing("is not installed: pip install 'qyolo[gpu]'")


# ------------------------------------------------------------------------------- ONNX Runtime

CUDA_ERROR = "libcublasLt.so.13: cannot open shared object file: No such file or directory"
OF_CUDA = """
import sys
__version__ = "1.31.1"
def preload_dlls():
    print("Failed to load libcudnn.so.9")
class OrtValue:
    @staticmethod
    def ortvalue_from_numpy(array, device, index):
        assert (device, index) == ("cuda", 0)
        {outcome}
"""


def onnxruntime_gpu(folder: Path, outcome: str) -> Path:
    """As the wheel of onnxruntime-gpu lies on the disk."""
    package(folder, "onnxruntime", OF_CUDA.format(outcome=outcome))
    (folder / "onnxruntime" / "capi").mkdir()
    (folder / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so").touch()
    return folder


def test_onnxruntime_for_the_cpu_has_no_cuda():
    state = runtime("onnxruntime-cuda")
    assert isinstance(state, Missing)
    assert "pip uninstall onnxruntime, pip install onnxruntime-gpu" in state.reason


def test_onnxruntime_that_reaches_the_gpu(tmp_path):
    works = onnxruntime_gpu(tmp_path, "return array")
    assert runtime("onnxruntime-cuda", works) == Installed("1.31.1")


def test_onnxruntime_without_cuda_is_told_in_the_words_of_the_loader(tmp_path):
    said = f"[E:onnxruntime:Default] Failed to load library x.so with error: {CUDA_ERROR}"
    outcome = f"print({said!r}, file=sys.stderr); raise RuntimeError('CUDA not available\\n')"
    broken = onnxruntime_gpu(tmp_path, outcome)
    assert runtime("onnxruntime-cuda", broken) == Missing(f"does not load: {CUDA_ERROR}")
