"""NVIDIA's two TensorRT libraries, which share one interface, and all in which they differ.

TensorRT compiles for the GPU that is here. TensorRT for RTX compiles for named compute
capabilities, on any machine, and makes the last kernels on the GPU when it first runs the engine.
"""

import importlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from service.engines.gpu import Gpu
from service.errors import DeviceUnavailable, EngineFailed
from service.manifest import Variant, read_local, write_local

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

TensorRtRuntime = Literal["tensorrt", "tensorrt-rtx"]

MODULES: Final[Mapping[TensorRtRuntime, str]] = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx_bindings",
}
LEVELS: Final[Mapping[str, int]] = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
}
# Warnings that need no action: TensorRT for RTX computes with the scales in float32, and says so
# for each convolution; exporters leave Resize's unused input empty.
EXPECTED: Final = re.compile(r"Converting conv (activation|weight) scales|Empty initializer")
LAYERS: Final = "Layers:\n"  # begins the builder's message that lists the layers of the engine

log = logging.getLogger(__name__)


class Log(Protocol):
    """A library's ILogger: it passes messages to our log, and keeps what calls do not return."""

    reason: str  # the last error
    listing: str  # the list of the last engine's layers, where the builder prints it


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two; `module` is its Python module."""

    runtime: TensorRtRuntime
    module: Any

    @property
    def name(self) -> str:
        return "TensorRT" if self.runtime == "tensorrt" else "TensorRT for RTX"

    @property
    def log(self) -> Log:
        """The logger of all its objects in this process: the library ignores a second one."""
        only: Log = _log_of(self.module.ILogger)
        return only

    def key(self, gpu: Gpu | None) -> str:
        """What a plan is compiled with and for.

        TensorRT's depends on the GPU's name; the variant lists the plans of TensorRT for RTX.
        """
        version = f"{self.runtime}-{self.module.__version__}"
        return (
            version
            if gpu is None or self.runtime != "tensorrt"
            else (f"{version}-{gpu.fingerprint}")
        )

    def plan_of(self, variant: Variant, gpu: Gpu) -> str:
        """The variant's plan for a GPU; raises DeviceUnavailable if it was built for another."""
        current = self.key(gpu)
        if variant.blob_key != current:
            raise DeviceUnavailable(
                f"{variant.model} was built for {variant.blob_key}, this machine is {current}: "
                "build it again here"
            )
        plan = variant.blob if self.runtime == "tensorrt" else variant.plans.get(gpu.target)
        if plan is not None:
            return plan
        if self.runtime == "tensorrt":
            raise EngineFailed(f"{variant.model} has no plan")
        raise DeviceUnavailable(
            f"{variant.model} was built for {' and '.join(variant.plans)}, but {gpu.name} is "
            f"{gpu.target}: build it again here, or with --target {gpu.target}"
        )

    def set_target(self, config: "trt.IBuilderConfig", target: str) -> None:
        """Compile for a compute capability, where the library does not take that of the GPU here.

        One at a time: a plan for several has only what all of them have, and sm75 has no int8.
        """
        if self.runtime == "tensorrt-rtx":
            rtx: Any = config
            rtx.num_compute_capabilities = 1
            rtx.set_compute_capability(getattr(self.module.ComputeCapability, target.upper()), 0)

    def create_context(
        self, engine: "trt.ICudaEngine", kernels: "Kernels"
    ) -> "trt.IExecutionContext | None":
        """An execution context, in TensorRT for RTX with the kernels that were made here before."""
        if self.runtime == "tensorrt":
            return engine.create_execution_context()
        config: Any = engine.create_runtime_config()
        config.cuda_graph_strategy = self.module.CudaGraphStrategy.DISABLED  # ours has the copies
        kernels.load(config)
        made: trt.IExecutionContext | None = engine.create_execution_context(config)
        return made


class Kernels:
    """The kernels that TensorRT for RTX makes when it first runs an engine, kept in a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._cache: Any = None
        self._saved = b""

    def load(self, config: Any) -> None:
        """Offer the saved kernels; the library rejects those of another GPU or driver."""
        self._cache = config.create_runtime_cache()
        self._saved = read_local(self._folder, self._name)
        if self._saved and not self._cache.deserialize(self._saved):
            log.info("%s: the kernels are of another GPU, driver or version", self._name)
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the file if the engine has made further kernels since."""
        content = self._saved if self._cache is None else bytes(self._cache.serialize())
        if content != self._saved:
            write_local(self._folder, self._name, content)
            self._saved = content


@cache
def load_library(runtime: TensorRtRuntime) -> Library:
    """Import it; raises DeviceUnavailable where it is not installed or lacks its libraries."""
    name, module = MODULES[runtime], None
    try:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:  # a folder of type stubs has no origin
            module = importlib.import_module(name)
    except ImportError as exc:
        raise DeviceUnavailable(f"{name} cannot be loaded ({exc}); see docs/how-to/gpu.md") from exc
    if module is None:
        raise DeviceUnavailable(f"{name} is not installed; see docs/how-to/gpu.md")
    return Library(runtime, module)


@cache
def _log_of(interface: Any) -> Any:
    class LibraryLog(interface):  # type: ignore[misc]
        def __init__(self) -> None:
            interface.__init__(self)
            self.reason, self.listing = "it gave no reason", ""

        def log(self, severity: Any, msg: str) -> None:
            level = LEVELS.get(severity.name, logging.DEBUG)
            if level == logging.ERROR:
                self.reason = msg
            elif EXPECTED.search(msg):
                level = logging.DEBUG
            elif msg.startswith(LAYERS):
                self.listing = msg
            log.log(level, "TensorRT: %s", msg)

    return LibraryLog()
