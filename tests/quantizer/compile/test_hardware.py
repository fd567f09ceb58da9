"""Detection of this machine, as it is and with other packages in front of the installed ones."""

import ctypes.util
import json
import os
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from quantizer.compile.hardware import Installed, Missing, RuntimeState, detect
from service.engines.cpu import read_cpu, usable_threads
from service.engines.gpu import NoGpu
from tests.nvml import compile_nvml
from tests.processes import run_python

DETECT = """
import json, sys
from dataclasses import asdict
from quantizer.compile.hardware import detect
found = asdict(detect())
loaded = {"onnxruntime", "openvino", "tensorrt", "cuda.bindings.runtime"} & set(sys.modules)
print(json.dumps(found | {"loaded": sorted(loaded)}))
"""


def detected(*packages: Path, **settings: object) -> dict:
    """As another process detects it, with these folders on its path."""
    path = os.pathsep.join(map(str, packages))
    environment = {"PYTHONPATH": path} | {name: str(at) for name, at in settings.items()}
    return json.loads(run_python(DETECT, env=os.environ | environment))


def runtime(name: str, *packages: Path) -> RuntimeState:
    found = detected(*packages)["runtimes"][name]
    return Installed(**found) if "version" in found else Missing(**found)


def package(folder: Path, name: str, code: str) -> Path:
    """The folder, with a package of that name."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return folder


def test_this_machine_is_detected_once():
    found = detect()
    threads = usable_threads(), os.cpu_count()
    assert (found.cpu, (found.threads, found.cores)) == (read_cpu(), threads)
    names = ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime"]
    assert list(found.runtimes) == names
    for name in ("openvino", "onnxruntime"):
        assert found.runtimes[name] == Installed(version(name))
    cuda = found.runtimes["onnxruntime-cuda"]
    assert isinstance(cuda, Missing)
    assert "pip uninstall onnxruntime, pip install onnxruntime-gpu" in cuda.reason
    assert detect() is found


@pytest.mark.skipif(
    ctypes.util.find_library("nvidia-ml") is not None, reason="an NVIDIA driver is installed here"
)
def test_a_machine_without_a_driver_has_no_gpu():
    gpu = detect().gpu
    assert isinstance(gpu, NoGpu)
    assert gpu.problem == "no NVIDIA driver here"


def test_a_gpu_is_found(tmp_path):
    found = detected(LD_LIBRARY_PATH=compile_nvml(tmp_path))
    assert found["gpu"]["name"] == "NVIDIA GeForce RTX 4090"


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_without_tensorrt_the_reason_is_how_to_install_it():
    reason = "is not installed: pip install 'qyolo[tensorrt]'"
    assert detect().runtimes["tensorrt"] == Missing(reason)


def test_tensorrt_for_rtx_loads_without_a_gpu(compiler):
    assert detect().runtimes["tensorrt-rtx"] == Installed(compiler.__version__)


def test_a_folder_of_type_stubs_is_no_runtime(tmp_path):
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").touch()
    assert runtime("tensorrt", tmp_path) == Missing(
        "is not installed: pip install 'qyolo[tensorrt]'"
    )


NO_LIBRARY = "libnvinfer.so.10: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("print('hello')\n__version__ = '10.16.1.11'", Installed("10.16.1.11")),
        (f"raise ImportError({NO_LIBRARY!r})", Missing(f"does not load: {NO_LIBRARY}")),
        ("import os; os.kill(os.getpid(), 11)", Missing("does not load: exit code -11")),
    ],
    ids=["loads", "lacks its library", "crashes its process"],
)
def test_tensorrt_is_loaded_in_a_process_of_its_own(code, state, tmp_path):
    found = detected(package(tmp_path, "tensorrt", code))
    assert found["runtimes"]["tensorrt"] == asdict(state)
    assert found["loaded"] == []


def test_tensorrt_needs_cuda_bindings(tmp_path):
    tensorrt = package(tmp_path / "t", "tensorrt", "__version__ = '10.16.1.11'")
    no_bindings = package(tmp_path / "c", "cuda", "")
    assert runtime("tensorrt", tensorrt, no_bindings) == Missing(
        "needs cuda-bindings, which is not installed: pip install 'qyolo[tensorrt]'"
    )


CUDA_ERROR = "libcublasLt.so.13: cannot open shared object file: No such file or directory"
LOADER_LINE = f"[E:onnxruntime:Default] Failed to load library x.so with error: {CUDA_ERROR}"
ONNXRUNTIME_GPU = """
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


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("return array", Installed("1.31.1")),
        (
            f"print({LOADER_LINE!r}, file=sys.stderr); raise RuntimeError('CUDA not available\\n')",
            Missing(f"does not load: {CUDA_ERROR}"),
        ),
    ],
    ids=["reaches the GPU", "lacks a library"],
)
def test_onnxruntime_on_cuda_gives_the_loaders_reason(outcome, state, tmp_path):
    package(tmp_path, "onnxruntime", ONNXRUNTIME_GPU.format(outcome=outcome))
    (tmp_path / "onnxruntime" / "capi").mkdir()
    (tmp_path / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so").touch()
    assert runtime("onnxruntime-cuda", tmp_path) == state
