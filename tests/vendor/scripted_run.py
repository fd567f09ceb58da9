"""Running as TensorRT does it, in a simulated device's memory, by ONNX Runtime on the CPU."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort

from tests.vendor.behaviour import of
from tests.vendor.conversion import is_buffer
from tests.vendor.device import Device, Mistake, Operation, Refused
from tests.vendor.fake_plan import NotAPlan, Plan, Tensor, read_plan
from tests.vendor.fake_tensorrt import FakeTensorRt, NotScripted
from tests.vendor.plot import Plot, report
from tests.vendor.scripted_config import host_memory

Arrays = Mapping[str, np.ndarray]
Runner = Callable[[Arrays], Arrays]

KERNELS: Final = "execute"  # the name of the operation that a context queues
LAYER_MS: Final = 0.25


def by_onnxruntime(model: onnx.ModelProto) -> Runner:
    """Runs the graph as it is written: optimised, Q/DQ in float16 become what it cannot run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    names = [each.name for each in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


class Running:
    """Runtime, ICudaEngine and IExecutionContext."""

    def __init__(
        self,
        fake: FakeTensorRt,
        plot: Plot,
        device: Device,
        runner: Callable[[onnx.ModelProto], Runner],
    ) -> None:
        self._fake = fake
        self._plot = plot
        self._device = device
        self._runner = runner

    @of("Runtime.deserialize_cuda_engine")
    def _deserialize(self, runtime: Any, content: Any) -> Any:
        if not is_buffer(content):
            raise NotScripted("an engine is read from bytes only")
        logger = runtime._state["logger"]
        try:
            plan = read_plan(bytes(content))
        except NotAPlan as exc:
            report(self._fake, logger, "ERROR", f"Serialization assertion failed: {exc}")
            return None
        here = self._fake.inventory.version
        if plan.version != here or self._plot.fails("deserialize"):
            text = f"The engine plan file was made by version {plan.version}, this is {here}"
            report(self._fake, logger, "ERROR", text)
            return None
        tensors = {each.name: each for each in plan.tensors}
        return self._fake.new(
            "ICudaEngine",
            plan=plan,
            tensors=tensors,
            logger=logger,
            name=plan.model.graph.name,
            num_io_tensors=len(tensors),
            num_layers=len(plan.layers()),
            run=None,
        )

    @of("ICudaEngine.serialize")
    def _serialize(self, engine: Any) -> Any:
        return host_memory(self._fake, engine._state["plan"].pack())

    @of("ICudaEngine.get_tensor_name", "ICudaEngine.__getitem__")
    def _name(self, engine: Any, index: int) -> str:
        return list(engine._state["tensors"])[index]

    @of("ICudaEngine.get_tensor_mode")
    def _mode(self, engine: Any, name: str) -> Any:
        tensor = engine._state["tensors"].get(name)
        modes = self._fake.module.TensorIOMode
        if tensor is None:
            return modes.NONE
        return modes.INPUT if tensor.is_input else modes.OUTPUT

    @of("ICudaEngine.get_tensor_shape", "IExecutionContext.get_tensor_shape")
    def _shape(self, owner: Any, name: str) -> Any:
        tensor = self._tensor(owner, name)
        return self._fake.new("Dims", dims=() if tensor is None else tensor.shape)

    @of("ICudaEngine.get_tensor_dtype")
    def _dtype(self, engine: Any, name: str) -> Any:
        types = self._fake.module.DataType
        names = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}
        tensor = self._tensor(engine, name)
        if tensor is None:
            return types.FLOAT
        written = tensor.dtype.name
        return getattr(types, names.get(written, written.upper()))

    @of("ICudaEngine.create_engine_inspector")
    def _inspector(self, engine: Any) -> Any:
        return self._fake.new("EngineInspector", plan=engine._state["plan"])

    @of("ICudaEngine.create_execution_context")
    def _context(self, engine: Any, how: Any) -> Any:
        if self._plot.fails("context"):
            report(self._fake, engine._state["logger"], "ERROR", "Cuda Runtime (out of memory)")
            return None
        return self._fake.new(
            "IExecutionContext",
            engine=engine,
            tensors=engine._state["tensors"],
            logger=engine._state["logger"],
            addresses={},
            profiler=None,
            enqueue_emits_profile=True,
        )

    @of("IExecutionContext.set_tensor_address")
    def _set_address(self, context: Any, name: str, address: int) -> bool:
        if self._tensor(context, name) is None:
            return False
        context._state["addresses"][name] = int(address)
        return True

    @of("IExecutionContext.get_tensor_address")
    def _get_address(self, context: Any, name: str) -> int:
        return context._state["addresses"].get(name, 0)

    @of("IExecutionContext.infer_shapes")
    def _infer_shapes(self, context: Any) -> list[str]:
        return []

    @of("IExecutionContext.execute_async_v3")
    def _execute(self, context: Any, handle: int) -> bool:
        state = context._state
        homeless = [name for name in state["tensors"] if not state["addresses"].get(name)]
        if homeless or self._plot.fails("execute"):
            text = f"no address is set for {homeless}" if homeless else "Cuda failure"
            report(self._fake, state["logger"], "ERROR", f"enqueueV3: {text}")
            return False
        addresses = dict(state["addresses"])
        stream = int(handle)
        try:
            self._device.enqueue(stream, Operation(KERNELS, lambda: self._run(state, addresses)))
            # With a profiler, TensorRT waits and reports; while it is recorded it cannot.
            if state["profiler"] is not None and not self._device.captured(stream):
                self._device.wait(stream)
                self._report_times(context)
        except Refused as exc:
            if isinstance(exc, Mistake):
                self._device.faults.append(f"execute_async_v3: {exc}")
            report(self._fake, state["logger"], "ERROR", f"enqueueV3: {exc.error}")
            return False
        return True

    def _run(self, state: Mapping[str, Any], addresses: Mapping[str, int]) -> None:
        engine = state["engine"]._state
        if engine["run"] is None:
            engine["run"] = self._runner(engine["plan"].model)
        tensors: list[Tensor] = list(engine["tensors"].values())
        feeds = {
            each.name: np.frombuffer(
                self._device.read(addresses[each.name], each.bytes), each.dtype
            ).reshape(each.shape)
            for each in tensors
            if each.is_input
        }
        made = engine["run"](feeds)
        for each in tensors:
            if not each.is_input:
                content = np.ascontiguousarray(made[each.name]).tobytes()
                assert len(content) == each.bytes
                self._device.write(addresses[each.name], content)

    def _report_times(self, context: Any) -> None:
        if context._state["enqueue_emits_profile"]:
            for layer in context._state["engine"]._state["plan"].layers():
                context._state["profiler"].report_layer_time(layer["Name"], LAYER_MS)

    def _tensor(self, owner: Any, name: str) -> Tensor | None:
        tensor = owner._state["tensors"].get(name)
        if tensor is None:
            text = f"Given invalid tensor name: {name}"
            report(self._fake, owner._state["logger"], "ERROR", text)
        return tensor


class Inspecting:
    """EngineInspector, and the shapes that it and others tell."""

    @of("EngineInspector.get_engine_information")
    def _engine(self, inspector: Any, form: Any) -> str:
        plan: Plan = inspector._state["plan"]
        return plan.information() if form.name == "JSON" else _lines(plan)

    @of("EngineInspector.get_layer_information")
    def _layer(self, inspector: Any, index: int, form: Any) -> str:
        layer = inspector._state["plan"].layers()[index]
        return json.dumps(layer) if form.name == "JSON" else layer["Name"]

    @of("Dims.__init__")
    def _dims(self, dims: Any, shape: Any = ()) -> None:
        dims._state["dims"] = tuple(int(each) for each in shape)

    @of("Dims.__len__")
    def _rank(self, dims: Any) -> int:
        return len(dims._state["dims"])

    @of("Dims.__getitem__")
    def _dim(self, dims: Any, index: Any) -> Any:
        return dims._state["dims"][index]

    @of("Dims.__eq__")
    def _equal(self, dims: Any, other: Any) -> bool:
        return dims._state["dims"] == tuple(other)

    @of("Dims.__repr__", "Dims.__str__")
    def _written(self, dims: Any) -> str:
        return str(dims._state["dims"])


def _lines(plan: Plan) -> str:
    return "\n".join(each["Name"] for each in plan.layers())
