"""OpenVINO on the CPU, and on other devices that it has."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, Final

import numpy as np

from service.engines.cpu import cpu_fingerprint
from service.errors import DeviceUnavailable, EngineFailed
from service.manifest import FloatType
from service.vision.detections import Floats, Outputs, as_output
from service.vision.preprocess import PREPROCESS, Canvas, Preprocess

try:
    import openvino as ov
    from openvino.preprocess import PrePostProcessor
except ImportError as exc:
    raise DeviceUnavailable("openvino is not installed: pip install 'qyolo[cpu]'") from exc

log = logging.getLogger(__name__)

CPU: Final = "CPU"
RETURNED: Final = (ov.Type.f32, ov.Type.u8)  # what the server reads
MODES: Final = ("AUTO", "BATCH", "HETERO", "MULTI")
# The driver compiles for GPUs and NPUs, so that its version decides too.
IDENTITY: Final = (
    "FULL_DEVICE_NAME",
    "DEVICE_ARCHITECTURE",
    "GPU_DRIVER_VERSION",
    "NPU_DRIVER_VERSION",
    "NPU_COMPILER_VERSION",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A device as OpenVINO writes it, and the folder where it may keep what it compiles."""

    device: str = CPU
    cache: Path | None = None

    @property
    def combines(self) -> bool:
        """Whether it is a mode over devices, as HETERO:GPU,CPU, which have the properties."""
        return self.device.partition(":")[0] in MODES


def blob_key(device: str = CPU) -> str:
    """What a blob is compiled for: the OpenVINO version, the device, and the kind of its input."""
    known = cpu_fingerprint() if device == CPU else f"{device}-{_identity(device)}"
    return f"openvino-{ov.get_version()}-{known}-canvas"


def _identity(device: str) -> str:
    """Names, architectures and drivers of a device, or of all that a mode combines."""
    core, known = ov.Core(), []
    for part in re.findall(r"[A-Z]+(?:\.\d+)?", device.rpartition(":")[2]):
        if part == CPU:
            known.append(cpu_fingerprint())
            continue
        told = (read_property(core, part, name) for name in IDENTITY)
        known += [str(value) for value in told if value is not None]
    return "-".join(known)


def read_property(core: ov.Core, device: str, name: str) -> Any:
    """None where another kind of device has it, or no such device is here."""
    try:
        return core.get_property(device, name)
    except RuntimeError:
        return None


def compile_options(
    threads: int, float_type: FloatType = "f32", streams: int = 1, target: Target | None = None
) -> dict[str, object]:
    """Options for the lowest latency of one stream, or the highest throughput of several.

    Without the precision hint OpenVINO runs float layers in bfloat16 on CPUs that have it and in
    float16 on GPUs, and the fp32 variant would not be fp32. An NPU computes in float16 and may not
    have the hint.
    """
    options: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": float_type,
    }
    if target is None or target.device == CPU:
        return options | {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads}
    if target.combines:
        return options
    known = read_property(ov.Core(), target.device, "SUPPORTED_PROPERTIES")
    if known is None:  # no such device, as compiling for it will say
        return options
    return {name: value for name, value in options.items() if name in known}


def with_byte_input(network: ov.Model, how: Preprocess) -> ov.Model:
    """A network that reads floats as one that reads the canvas of `Engine.infer`."""
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    planes = steps.input().preprocess().convert_element_type(ov.Type.f32)
    if how.divisor != 1:
        planes.scale(how.divisor)
    if how.bgr:
        planes.reverse_channels()
    return steps.build()


class OpenVinoEngine:
    """Runs an IR, or its blob: the same network, compiled at build time.

    `raw` is the IR of the whole graph, which is compiled when `infer_tensor` is first called;
    without it `model` is that graph.
    """

    def __init__(
        self,
        model: Path,
        raw: Path | None,
        blob: Path | None,
        threads: int,
        float_type: FloatType = "f32",
        streams: int = 1,
        preprocess: Preprocess = PREPROCESS["yolo"],
        target: Target | None = None,
    ) -> None:
        self._whole = raw or model
        self._target = target or Target()
        self._options = compile_options(threads, float_type, streams, self._target)
        self._streams = streams
        # A blob is compiled for one stream.
        compiled = _import(blob, self._target, self._options) if blob and streams == 1 else None
        if compiled is None:
            reads_bytes = raw is not None
            compiled = _compile(
                model,
                self._target,
                self._options,
                lambda read: read if reads_bytes else with_byte_input(read, preprocess),
            )
        self._served: _Requests | None = _Requests(compiled, streams)
        self._for_tensors: _Requests | None = None
        self._compiling = Lock()

    def infer(self, image: Canvas) -> Outputs:
        return _open(self._served).infer(image)

    def infer_tensor(self, tensor: Floats) -> Floats:
        with self._compiling:
            if self._for_tensors is None and self._served is not None:
                compiled = _compile(self._whole, self._target, self._options, lambda read: read)
                self._for_tensors = _Requests(compiled, self._streams)
        return np.asarray(_open(self._for_tensors).infer(tensor)[0], np.float32)

    def close(self) -> None:
        with self._compiling:
            self._served = self._for_tensors = None


class _Requests:
    """The infer requests of one compiled network: one for each stream."""

    def __init__(self, compiled: ov.CompiledModel, streams: int) -> None:
        outputs = compiled.outputs
        static = all(
            each.partial_shape.is_static and each.element_type in RETURNED for each in outputs
        )
        self._results = (
            [(tuple(each.shape), each.element_type.to_dtype()) for each in outputs]
            if static
            else None
        )
        self._idle: SimpleQueue[ov.InferRequest] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def infer(self, image: Canvas | Floats) -> Outputs:
        # As a tensor, which a read-only array cannot be: arguments of `infer` take longer.
        read = np.require(image, requirements=["C", "W"])
        request = self._idle.get()
        try:
            request.set_input_tensor(ov.Tensor(read, shared_memory=True))
            if self._results is None:
                return tuple(map(as_output, request.infer().to_tuple()))
            # OpenVINO writes into the caller's arrays: a copy would take as long as the decoding.
            outputs: Outputs = tuple(np.empty(*result) for result in self._results)
            for index, array in enumerate(outputs):
                request.set_output_tensor(index, ov.Tensor(array, shared_memory=True))
            request.infer(share_outputs=True)
            return outputs
        except RuntimeError as exc:
            raise EngineFailed("OpenVINO could not run the model") from exc
        finally:
            self._idle.put(request)


def _open(requests: _Requests | None) -> _Requests:
    if requests is None:
        raise EngineFailed("the engine is closed")
    return requests


def last_line(exc: BaseException) -> str:
    """Of an error of OpenVINO's: the lines before it are places in its source."""
    return next(reversed([line for line in str(exc).splitlines() if line.strip()]), "").strip()


def _import(blob: Path, target: Target, options: dict[str, object]) -> ov.CompiledModel | None:
    try:
        return ov.Core().import_model(blob.read_bytes(), target.device, options)
    except RuntimeError:
        log.warning("the compiled blob cannot be loaded; compiling the model instead")
        return None


def _compile(
    model: Path,
    target: Target,
    options: dict[str, object],
    change: Callable[[ov.Model], ov.Model],
) -> ov.CompiledModel:
    core = ov.Core()
    try:
        network = change(core.read_model(model))
        return core.compile_model(network, target.device, options | _caching(target))
    except RuntimeError as exc:
        if target.device == CPU:
            raise EngineFailed("OpenVINO could not load the model") from exc
        raise EngineFailed(
            f"OpenVINO could not load the model on {target.device} ({last_line(exc)}): "
            "qyolo doctor shows what is missing"
        ) from exc


def _caching(target: Target) -> dict[str, object]:
    """Where a GPU or an NPU, which compile slowly, may keep the result.

    A mode over devices may not: OpenVINO 2026.4.1 then takes what it compiled for float32 for
    float16 as well.
    """
    if target.cache is None or target.device == CPU or target.combines:
        return {}
    try:
        target.cache.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        log.info("%s is not kept: %s", target.cache, exc)
        return {}
    return {"CACHE_DIR": str(target.cache)}
