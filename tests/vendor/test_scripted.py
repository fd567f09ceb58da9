"""The scripted TensorRT builds and runs a graph as the real one would, and fails where asked."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.vendor.plot import Complaint

SHAPE = (1, 3, 8, 8)


def tiny(kind: str = "float", half: bool = False) -> onnx.ModelProto:
    """A convolution and a ReLU; as int8, with Q/DQ pairs before both of its inputs."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32)
    constants = {"weight": weight}
    nodes, image = [], "images"
    if half:
        nodes.append(helper.make_node("Cast", ["images"], ["half"], name="to", to=10))
        constants, image = {"weight": weight.astype(np.float16)}, "half"
    reads = [image, "weight"]
    if kind == "int8":
        constants = {"weight": np.clip(weight * 64, -127, 127).astype(np.int8)}
        constants |= {"scale": np.float32(1 / 64), "zero": np.int8(0)}
        parameters = ["scale", "zero"]
        nodes.append(helper.make_node("QuantizeLinear", [image, *parameters], ["q"], name="q"))
        nodes.append(helper.make_node("DequantizeLinear", ["q", *parameters], ["x"], name="dq"))
        nodes.append(helper.make_node("DequantizeLinear", ["weight", *parameters], ["w"]))
        reads = ["x", "w"]
    nodes.append(helper.make_node("Conv", reads, ["y"], name="/0/Conv"))
    nodes.append(helper.make_node("Relu", ["y"], ["z"], name="/0/Relu"))
    nodes.append(helper.make_node("Cast", ["z"], ["output"], name="from", to=1))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, 4, 8, 8))],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def log(nvidia):
    trt = nvidia.tensorrt

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors = []

        def log(self, severity, msg):
            if severity == trt.ILogger.ERROR:
                self.errors.append(msg)

    return Log()


@pytest.fixture
def trt(nvidia):
    return nvidia.tensorrt


def configured(trt, builder):
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    return config


def plan_of(trt, log, model=None, config=None) -> bytes | None:
    builder = trt.Builder(log)
    strongly = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly)
    parser = trt.OnnxParser(network, log)
    assert parser.parse((model or tiny()).SerializeToString())
    plan = builder.build_serialized_network(network, config or configured(trt, builder))
    return None if plan is None else bytes(plan)


def engine_of(trt, log, model=None):
    return trt.Runtime(log).deserialize_cuda_engine(plan_of(trt, log, model))


class Session:
    """An engine with memory of the device and a stream, as a caller sets it up."""

    def __init__(self, nvidia, engine) -> None:
        self.cudart = nvidia.cudart
        self.context = engine.create_execution_context()
        _, self.stream = self.cudart.cudaStreamCreate()
        self.host, self.device = {}, {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape = tuple(engine.get_tensor_shape(name))
            dtype = np.dtype(nvidia.tensorrt.nptype(engine.get_tensor_dtype(name)))
            size = int(np.prod(shape)) * dtype.itemsize
            _, self.host[name] = self.cudart.cudaMallocHost(size)
            _, self.device[name] = self.cudart.cudaMalloc(size)
            assert self.context.set_tensor_address(name, self.device[name])
            setattr(self, name, array_at(self.host[name], shape, dtype))

    def queue(self) -> bool:
        kinds = self.cudart.cudaMemcpyKind
        up = self.device["images"], self.host["images"], self.images.nbytes
        self.cudart.cudaMemcpyAsync(*up, kinds.cudaMemcpyHostToDevice, self.stream)
        done = self.context.execute_async_v3(int(self.stream))
        down = self.host["output"], self.device["output"], self.output.nbytes
        self.cudart.cudaMemcpyAsync(*down, kinds.cudaMemcpyDeviceToHost, self.stream)
        return done

    def wait(self):
        return self.cudart.cudaStreamSynchronize(self.stream)[0].name

    def close(self) -> None:
        for name in self.host:
            self.cudart.cudaFree(self.device[name])
            self.cudart.cudaFreeHost(self.host[name])
        self.cudart.cudaStreamDestroy(self.stream)


def array_at(address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    import ctypes

    size = int(np.prod(shape)) * dtype.itemsize
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)


def expected(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    from tests.vendor.scripted_run import by_onnxruntime

    return by_onnxruntime(model)({"images": images})["output"]


@pytest.mark.parametrize("recorded", [False, True])
def test_a_graph_is_built_and_runs(recorded, nvidia, trt, log):
    session = Session(nvidia, engine_of(trt, log))
    cudart = nvidia.cudart
    if recorded:
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        cudart.cudaStreamBeginCapture(session.stream, mode)
        assert session.queue()
        _, graph = cudart.cudaStreamEndCapture(session.stream)
        _, executable = cudart.cudaGraphInstantiate(graph, 0)
        cudart.cudaGraphDestroy(graph)
    for seed in range(2):
        images = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)
        session.images[:] = images
        if recorded:
            cudart.cudaGraphLaunch(executable, session.stream)
        else:
            assert session.queue()
        assert session.wait() == "cudaSuccess"
        np.testing.assert_array_equal(session.output, expected(tiny(), images))
    if recorded:
        cudart.cudaGraphExecDestroy(executable)
    session.close()
    nvidia.device.require_clean()
    assert log.errors == []


def test_the_engine_tells_of_its_tensors(trt, log):
    engine = engine_of(trt, log)
    assert [engine.get_tensor_name(index) for index in range(2)] == ["images", "output"]
    assert engine.get_tensor_mode("images") == trt.TensorIOMode.INPUT
    assert engine.get_tensor_mode("output") == trt.TensorIOMode.OUTPUT
    assert engine.get_tensor_mode("nome") == trt.TensorIOMode.NONE
    assert engine.get_tensor_shape("output") == (1, 4, 8, 8)
    assert engine.get_tensor_dtype("images") == trt.float32
    assert engine.create_execution_context().engine is engine
    assert not engine.create_execution_context().set_tensor_address("nome", 4)
    assert log.errors == ["Given invalid tensor name: nome"]


@pytest.mark.parametrize(
    ("model", "word"),
    [(tiny(), "Float"), (tiny("int8"), "Int8"), (tiny(half=True), "Half")],
    ids=["float", "int8", "half"],
)
def test_the_inspector_tells_what_each_layer_reads(model, word, trt, log):
    inspector = engine_of(trt, log, model).create_engine_inspector()
    told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    layers = {layer["Name"]: layer for layer in told["Layers"]}
    assert told["Bindings"] == ["images", "output"]
    layer = layers["/0/Conv"]
    assert layer["LayerType"] == "CaskConvolution"
    assert layer["Metadata"] == "[ONNX Layer: /0/Conv]"
    (read,) = layer["Inputs"]
    assert (read["Dimensions"], read["Format/Datatype"]) == (list(SHAPE), word)


def test_without_detail_the_inspector_tells_only_names(trt, log):
    config = trt.Builder(log).create_builder_config()
    plan = plan_of(trt, log, config=config)
    inspector = trt.Runtime(log).deserialize_cuda_engine(plan).create_engine_inspector()
    told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    assert told["Layers"] == ["/0/Conv", "/0/Relu", "from"]


def test_a_profiler_hears_of_each_layer_unless_the_work_is_recorded(nvidia, trt, log):
    heard = []

    class Times(trt.IProfiler):
        def __init__(self):
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name, ms):
            heard.append((layer_name, ms > 0))

    session = Session(nvidia, engine_of(trt, log))
    session.context.profiler = Times()
    assert session.queue()
    assert heard == [("/0/Conv", True), ("/0/Relu", True), ("from", True)]
    mode = nvidia.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    session.wait()
    nvidia.cudart.cudaStreamBeginCapture(session.stream, mode)
    assert session.queue()
    assert len(heard) == 3


def watched(trt, answers):
    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            trt.IProgressMonitor.__init__(self)
            self.events = []

        def phase_start(self, phase_name, parent_phase, num_steps):
            self.events.append((phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name, step):
            self.events.append((phase_name, step))
            return answers(phase_name, step)

        def phase_finish(self, phase_name):
            self.events.append((phase_name,))

    return Monitor()


def test_a_monitor_sees_the_build_go_on(trt, log):
    config = configured(trt, trt.Builder(log))
    config.progress_monitor = monitor = watched(trt, lambda phase, step: True)
    assert plan_of(trt, log, config=config) is not None
    root = monitor.events[0][0]
    assert monitor.events[0] == (root, None, 3)
    assert monitor.events[1][1] == root
    assert [each for each in monitor.events if each[0] == root][1:] == [
        (root, 0),
        (root, 1),
        (root, 2),
        (root,),
    ]


def test_a_monitor_can_end_a_build(trt, log):
    config = configured(trt, trt.Builder(log))
    config.progress_monitor = monitor = watched(trt, lambda phase, step: False)
    assert plan_of(trt, log, config=config) is None
    assert len(monitor.events) == 5
    assert "cancelled" in log.errors[0]
    config.progress_monitor = watched(trt, lambda phase, step: None)
    with pytest.raises(TypeError, match="step_complete returns a bool"):
        plan_of(trt, log, config=config)


def test_what_a_build_was_asked_for_is_kept(nvidia, trt, log):
    builder = trt.Builder(log)
    config = configured(trt, builder)
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_flag(trt.BuilderFlag.REFIT)
    assert config.get_flag(trt.BuilderFlag.REFIT)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 20)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 20
    plan_of(trt, log, config=config)
    (build,) = nvidia.plot.builds
    assert build.network_flags == {"STRONGLY_TYPED"}
    assert build.flags == {"REFIT"}
    assert build.verbosity == "DETAILED"
    assert build.pools == {"WORKSPACE": 1 << 20}
    assert build.known == ()


def test_a_timing_cache_remembers_layers(nvidia, trt, log):
    builder = trt.Builder(log)
    config = configured(trt, builder)
    assert config.set_timing_cache(config.create_timing_cache(b""), False)
    plan_of(trt, log, config=config)
    kept = bytes(config.get_timing_cache().serialize())
    again = configured(trt, builder)
    assert again.set_timing_cache(again.create_timing_cache(kept), False)
    plan_of(trt, log, config=again)
    assert nvidia.plot.builds[-1].known == ("/0/Conv", "/0/Relu", "from")
    for bad in (b"damaged", kept.replace(trt.__version__.encode(), b"9.0.0.1")):
        cache = again.create_timing_cache(bad)
        assert not again.set_timing_cache(cache, False)
        assert again.set_timing_cache(cache, True)


def test_an_invalid_graph_is_refused_by_the_parser(trt, log):
    model = tiny()
    model.graph.node[0].op_type = "Nome"
    parser = trt.OnnxParser(trt.Builder(log).create_network(), log)
    assert not parser.parse(model.SerializeToString())
    assert parser.num_errors == 1
    assert "Nome" in parser.get_error(0).desc()
    assert not parser.parse(b"no graph")
    assert parser.num_errors == 2
    parser.clear_errors()
    assert parser.num_errors == 0


def test_the_parser_complains_as_it_is_told_to(nvidia, trt, log):
    nvidia.plot.fail("parse")
    nvidia.plot.complaint = Complaint("too new", "/0/Conv", "Conv", 3)
    parser = trt.OnnxParser(trt.Builder(log).create_network(), log)
    assert not parser.parse(tiny().SerializeToString())
    error = parser.get_error(0)
    assert (error.desc(), error.node_name(), error.node_operator(), error.node()) == (
        "too new",
        "/0/Conv",
        "Conv",
        3,
    )


def test_a_build_fails(nvidia, trt, log):
    nvidia.plot.fail("build")
    assert plan_of(trt, log) is None
    assert log.errors == ["Could not find any implementation for node"]


def test_a_plan_of_another_version_is_stale(nvidia, trt, log):
    plan = plan_of(trt, log)
    runtime = trt.Runtime(log)
    for content in (plan.replace(trt.__version__.encode(), b"9.0.0.1"), b"", plan[:30]):
        assert runtime.deserialize_cuda_engine(content) is None
    assert len(log.errors) == 3
    nvidia.plot.fail("deserialize")
    assert runtime.deserialize_cuda_engine(plan) is None


def test_no_memory_for_a_context(nvidia, trt, log):
    engine = engine_of(trt, log)
    nvidia.plot.fail("context")
    assert engine.create_execution_context() is None
    assert "out of memory" in log.errors[0]


def test_an_execution_fails(nvidia, trt, log):
    session = Session(nvidia, engine_of(trt, log))
    nvidia.plot.fail("execute", calls=2, after=1)
    assert [session.queue() for _ in range(4)] == [True, False, False, True]
    assert log.errors == ["enqueueV3: Cuda failure"] * 2


def test_an_address_that_is_not_set_or_not_on_the_device_is_told(nvidia, trt, log):
    engine = engine_of(trt, log)
    assert not engine.create_execution_context().execute_async_v3(0)
    assert "no address is set for ['images', 'output']" in log.errors[0]
    session = Session(nvidia, engine)
    session.context.set_tensor_address("output", session.host["output"])
    assert session.queue()
    assert session.wait() == "cudaErrorIllegalAddress"
    assert "a kernel uses host memory" in nvidia.device.faults[0]


def test_a_stream_that_is_gone_is_told(nvidia, trt, log):
    session = Session(nvidia, engine_of(trt, log))
    session.close()
    assert not session.context.execute_async_v3(int(session.stream))
    assert nvidia.device.faults[-1].startswith("execute_async_v3: there is no stream")
