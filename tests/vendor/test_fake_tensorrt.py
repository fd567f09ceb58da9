"""The fake has what the real module has and refuses what that one refuses."""

import json

import pytest

from tests.vendor.behaviour import behaviours_of
from tests.vendor.fake_tensorrt import BadScript, FakeTensorRt, NotScripted
from tests.vendor.scripted_run import Inspecting
from tests.vendor.wheel import find_wheel, importable, run_python


@pytest.fixture
def fake(tensorrt_inventory):
    return FakeTensorRt(tensorrt_inventory)


@pytest.fixture
def trt(fake):
    return fake.module


def logger(trt):
    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.said = []

        def log(self, severity, msg):
            self.said.append((severity.name, msg))

    return Log()


SAME = """
BuilderFlag.TF32
str(BuilderFlag.TF32)
int(BuilderFlag.TF32)
BuilderFlag.TF32.name
BuilderFlag.TF32.value
BuilderFlag.TF32 == 6
BuilderFlag.TF32 == BuilderFlag(6)
BuilderFlag.TF32 == DataType.FLOAT
BuilderFlag.TF32 != BuilderFlag.DEBUG
BuilderFlag.TF32 > BuilderFlag.DEBUG
BuilderFlag.TF32 > 1
BuilderFlag(77)
BuilderFlag('TF32')
BuilderFlag.NOME
1 << BuilderFlag.TF32
1 << int(BuilderFlag.TF32)
[5, 6][TensorIOMode.INPUT]
BuilderFlag.TF32 | BuilderFlag.DEBUG
BuilderFlag.TF32.nome
{DataType.FLOAT: 1}[float32]
list(DataType.__members__)
DataType.FLOAT < DataType.HALF
setattr(BuilderFlag.TF32, 'value', 3)
IBuilderConfig()
Builder()
Builder(3)
Builder(None)
OnnxParser(1, 2)
ILogger.INFO
ILogger.Severity.INFO == Logger.INFO
Logger().min_severity
Logger(Logger.INFO).min_severity
Logger(min_severity=Logger.ERROR).min_severity
Logger(severity=Logger.ERROR)
Logger(3)
setattr(Logger(), 'min_severity', 3)
setattr(Logger(), 'nome', 3)
setattr(Weights(), 'size', 3)
Logger().nome
Logger().log('x')
Logger().log(3, 'x')
Logger().log(severity=3)
IProfiler().report_layer_time(1, 2)
IProfiler().report_layer_time('x', 'y')
type('Log', (ILogger,), {'__init__': lambda self: None})()
type('Log', (ILogger,), {'nome': 3})().nome
type('Log', (ILogger,), {'__init__': lambda self: ILogger.__init__(self)})().nome
len(Dims((1, 2)))
tuple(Dims([1, 2]))
Dims((1, 2))[1]
Dims((1, 2))[5]
Dims((1, 2)) == (1, 2)
Dims(shape=(1, 2))
Dims((1.5, 2))
Dims('ab')
Dims.MAX_DIMS
setattr(Dims(), 'nome', 1)
volume((2, 3))
nome
init_libnvinfer_plugins(1)
get_nv_onnx_parser_version(1)
"""
LINES = SAME.strip().splitlines()
# What an expression comes to in a module: the name of an error, or a value as text.
OUTCOMES = """
def outcome(line, names):
    try:
        return repr(eval(line, dict(names)))
    except Exception as exc:
        return type(exc).__name__

def outcomes(lines, module):
    names = {name: each for name, each in vars(module).items() if name != "bool"}
    return [outcome(line, names) for line in lines]
"""
REAL = f"""{OUTCOMES}
import json, sys
sys.path.insert(0, sys.argv[1])
import tensorrt_bindings
json.dump(outcomes(json.loads(sys.argv[2]), tensorrt_bindings), sys.stdout)
"""


@pytest.mark.parametrize("version", ["10", "11"])
def test_it_answers_as_the_real_module_does(version, request):
    fake = FakeTensorRt(request.getfixturevalue(f"tensorrt_{version}"))
    fake.script(behaviours_of(Inspecting()))
    names: dict = {}
    exec(OUTCOMES, names)
    with importable(find_wheel(version)) as folder:
        real = run_python(folder, "-c", REAL, str(folder), json.dumps(LINES))
    found = dict(zip(LINES, names["outcomes"](LINES, fake.module), strict=True))
    assert found == dict(zip(LINES, json.loads(real), strict=True))


def test_a_call_is_checked_before_a_behaviour_sees_it(fake, trt):
    seen = []

    def create(builder, flags):
        seen.append(flags)
        return fake.new("INetworkDefinition")

    fake.script({"Builder.create_network": create})
    builder = trt.Builder(logger(trt))
    builder.create_network()
    builder.create_network(flags=2)
    for args, kwargs in (((1, 2), {}), ((), {"flag": 1}), (("1",), {}), ((1.5,), {})):
        with pytest.raises(TypeError, match=r"create_network\(\): incompatible function arguments"):
            builder.create_network(*args, **kwargs)
    assert seen == [0, 2]


def test_the_overload_that_fits_is_taken(fake, trt):
    seen = []
    fake.script({"ICudaEngine.create_execution_context": lambda engine, how: seen.append(how)})
    engine = fake.new("ICudaEngine")
    engine.create_execution_context()
    engine.create_execution_context(runtime_config=None)
    engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    static = trt.ExecutionContextAllocationStrategy.STATIC
    assert seen == [static, None, trt.ExecutionContextAllocationStrategy.USER_MANAGED]


def test_what_no_behaviour_is_given_for_is_told(fake, trt):
    builder = trt.Builder(logger(trt))
    with pytest.raises(NotScripted, match=r"no behaviour is given for Builder\.create_network"):
        builder.create_network()
    with pytest.raises(NotScripted, match=r"Builder\.max_threads"):
        _ = builder.max_threads
    with pytest.raises(NotScripted, match="get_nv_onnx_parser_version"):
        trt.get_nv_onnx_parser_version()


def test_constructors_and_properties_remember(fake, trt):
    log = logger(trt)
    assert trt.Builder(log).logger is log
    config = fake.new("IBuilderConfig", builder_optimization_level=3)
    assert config.builder_optimization_level == 3
    config.builder_optimization_level = 5
    assert config.builder_optimization_level == 5
    with pytest.raises(TypeError, match=r"profiling_verbosity takes ProfilingVerbosity, not 2"):
        config.profiling_verbosity = 2
    with pytest.raises(AttributeError):
        config.profiling_verbosityy = 2
    with pytest.raises(AttributeError):
        config.num_optimization_profiles = 2


def test_a_behaviour_hears_of_a_property_that_is_set(fake, trt):
    heard = []
    fake.script({"IExecutionContext.profiler=": lambda context, value: heard.append(value)})
    context, profiler = fake.new("IExecutionContext"), trt.Profiler()
    context.profiler = profiler
    assert heard == [profiler]
    assert context.profiler is profiler


@pytest.mark.parametrize("name", ["Builder.build", "Bilder", "Dims.MAX_DIMS=", "Builder.logger="])
def test_no_behaviour_can_be_given_for_what_is_not_there(fake, name):
    with pytest.raises(BadScript, match=f"has no {name}"):
        fake.script({name: lambda *args: None})


def test_a_behaviour_returns_what_the_real_one_would(fake, trt):
    fake.script({"ICudaEngine.get_tensor_shape": lambda engine, name: (1, 2)})
    with pytest.raises(TypeError, match="get_tensor_shape"):
        fake.new("ICudaEngine").get_tensor_shape(3)
    fake.script({"ICudaEngine.get_tensor_mode": lambda engine, name: "INPUT"})
    with pytest.raises(BadScript, match="get_tensor_mode returns TensorIOMode, not 'INPUT'"):
        fake.new("ICudaEngine").get_tensor_mode("x")


def test_version_11_lacks_what_it_dropped(tensorrt_10, tensorrt_11):
    old, new = FakeTensorRt(tensorrt_10).module, FakeTensorRt(tensorrt_11).module
    assert (old.__version__, new.__version__) == (tensorrt_10.version, tensorrt_11.version)
    assert old.BuilderFlag.INT8.name == "INT8"
    with pytest.raises(AttributeError, match="INT8"):
        _ = new.BuilderFlag.INT8
    with pytest.raises(AttributeError, match="IInt8Calibrator"):
        _ = new.IInt8Calibrator


def test_functions_that_are_written_in_python_are_the_real_ones(trt):
    import numpy as np

    assert trt.nptype(trt.float16) is np.float16
    assert trt.nptype(trt.DataType.BOOL) is np.bool_
    with pytest.raises(TypeError, match="Could not resolve"):
        trt.nptype(trt.bfloat16)


def test_host_memory_is_a_buffer(fake):
    assert bytes(fake.new("IHostMemory", bytes=b"plan")) == b"plan"
    with pytest.raises(TypeError):
        bytes(fake.new("Builder"))


def test_a_subclass_is_called_by_what_it_overrides(trt):
    log = logger(trt)
    assert isinstance(log, trt.ILogger)
    log.log(trt.ILogger.Severity.ERROR, "bad")
    assert log.said == [("ERROR", "bad")]
    with pytest.raises(NotScripted, match=r"ILogger\.log"):
        trt.ILogger.log(log, trt.ILogger.ERROR, "bad")
