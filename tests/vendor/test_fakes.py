"""The fakes have what the real bindings have, and refuse what those refuse."""

import json
import sys

import pytest

from tests.vendor.interface import Unreadable, find_wheel, importable, run_python
from tests.vendor.signatures import Parameter, Signature, pybind_signatures

SAME = """
BuilderFlag.TF32.name
BuilderFlag.TF32.value
int(BuilderFlag.TF32)
BuilderFlag.TF32 == 6
BuilderFlag.TF32 == BuilderFlag(6)
BuilderFlag.TF32 == DataType.FLOAT
BuilderFlag.NOME
BuilderFlag.INT8
NetworkDefinitionCreationFlag.EXPLICIT_BATCH
1 << BuilderFlag.TF32
1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
[5, 6][TensorIOMode.INPUT]
BuilderFlag.TF32 | BuilderFlag.DEBUG
{DataType.FLOAT: 1}[float32]
ILogger.Severity.WARNING.name
IBuilderConfig()
IHostMemory()
Builder()
Builder(3)
OnnxParser(1, 2)
IProfiler().report_layer_time(1, 2)
IProfiler().report_layer_time('x', 'y')
type('Log', (ILogger,), {'__init__': lambda self: None})()
type('Log', (ILogger,), {'__init__': lambda self: ILogger.__init__(self)})().nome
len(Dims((1, 2)))
tuple(Dims([1, 2]))
Dims((1, 2))[5]
Dims((1.5, 2))
setattr(Dims(), 'nome', 1)
setattr(ILogger(), 'nome', 1)
Bilder
"""
# The value of each expression in a module as text, or the name of the error.
OUTCOMES = """
def outcome(line, names):
    try:
        return repr(eval(line, dict(names)))
    except Exception as exc:
        return type(exc).__name__

def outcomes(lines, module):
    return [outcome(line, vars(module) | {"bool": bool}) for line in lines]
"""
REAL = f"""{OUTCOMES}
import json, sys
sys.path.insert(0, sys.argv[1])
import tensorrt_bindings
json.dump(outcomes(json.loads(sys.argv[2]), tensorrt_bindings), sys.stdout)
"""


def test_the_fake_answers_as_the_real_module_does(nvidia):
    names, lines = {}, SAME.strip().splitlines()
    exec(OUTCOMES, names)
    version = nvidia.tensorrt.interface.version.partition(".")[0]
    with importable(find_wheel(version)) as folder:
        real = run_python(folder, "-c", REAL, str(folder), json.dumps(lines))
    found = names["outcomes"](lines, nvidia.tensorrt.module)
    assert dict(zip(lines, found, strict=True)) == dict(zip(lines, json.loads(real), strict=True))


def test_a_fake_class_has_only_what_the_real_class_has(nvidia):
    from tests.vendor.fake_tensorrt import Fake, FakeTensorRt

    def kind(name: str, **methods: object) -> type:
        return type(Fake)(name, (Fake,), methods)

    wrong = {
        "there is no Builder.build": kind("Builder", build=lambda self: None),
        "create_network takes other": kind("Builder", create_network=lambda self, flag=0: None),
        "there is no OnnxParser.nome": kind("OnnxParser", nome=property(lambda self: 1)),
        "Builder is no buffer": kind("Builder", __bytes__=lambda self: b""),
    }
    for reason, each in wrong.items():
        with pytest.raises(AssertionError, match=reason):
            FakeTensorRt(nvidia.tensorrt.interface, nvidia.device, [each])
    with pytest.raises(AssertionError, match="nome"):
        nvidia.tensorrt.new("IBuilderConfig", nome=1)


def test_arguments_and_values_have_the_types_of_the_real_ones(nvidia):
    trt = nvidia.tensorrt.module

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)

    builder = trt.Builder(Log())
    builder.create_network(flags=2)
    for args, kwargs in (
        ((1, 2), {}),
        ((1,), {"flags": 2}),
        ((), {"flag": 1}),
        (("1",), {}),
        ((1.5,), {}),
    ):
        with pytest.raises(TypeError, match=r"create_network does not take"):
            builder.create_network(*args, **kwargs)
    config = builder.create_builder_config()
    with pytest.raises(TypeError, match="profiling_verbosity takes ProfilingVerbosity, not 2"):
        config.profiling_verbosity = 2
    for name in ("profiling_verbosityy", "num_optimization_profiles"):
        with pytest.raises(AttributeError, match=f"{name} cannot be set"):
            setattr(config, name, 2)
    for args in ((), (1, 2), ("4",), (None,)):
        with pytest.raises(TypeError, match="cudaMalloc does not take"):
            nvidia.cuda.module.cudaMalloc(*args)
    with pytest.raises(TypeError, match="cudaMemcpyAsync does not take"):
        nvidia.cuda.module.cudaMemcpyAsync(1, 2, 3, 1, 4)


@pytest.mark.parametrize(
    ("calls", "mistake"),
    [
        ("copy(device, host, 17, up)", "17 bytes at .* are not allocated"),
        ("copy(host, device, 16, up)", "cudaMemcpyHostToDevice from device to host"),
        ("cudaFree(device); cudaFree(device)", "no live device memory"),
        ("cudaFree(host)", "no live device memory"),
        ("cudaFree(device); copy(device, host, 16, up)", "are not allocated"),
        ("begin(); cudaMalloc(4)", "memory is allocated in a capture"),
        ("begin(); cudaStreamSynchronize(stream)", "a captured stream is waited for"),
        ("begin(); begin()", "captured already"),
        ("cudaStreamEndCapture(stream)", "is not captured"),
        ("cudaGraphLaunch(stream, stream)", "no graph"),
        ("cudaStreamDestroy(stream); cudaStreamSynchronize(stream)", "no stream"),
        ("pass", "16 bytes of device"),
    ],
)
def test_mistakes_and_leaks_on_the_device_are_found(nvidia, calls, mistake):
    cuda = nvidia.cuda.module
    names = dict(vars(cuda))
    _, names["device"] = cuda.cudaMalloc(16)
    _, names["host"] = cuda.cudaMallocHost(16)
    _, names["stream"] = cuda.cudaStreamCreate()
    names["up"] = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
    mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    names["begin"] = lambda: cuda.cudaStreamBeginCapture(names["stream"], mode)
    names["copy"] = lambda *args: cuda.cudaMemcpyAsync(*args, names["stream"])
    exec(calls, names)
    with pytest.raises(AssertionError, match=mistake):
        nvidia.device.require_clean()


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("f(self: A) -> None\n\nText -> more", [Signature((), "None")]),
        (
            "f(self: A, x: ns::v_1_0::IB, y: other::C) -> A",
            [Signature((Parameter("x", "B"), Parameter("y", "object")), "A")],
        ),
        (
            "f(self: A, x: A = <A.ONE: 1>, z: str = '') -> A",
            [Signature((Parameter("x", "A", True), Parameter("z", "str", True)), "A")],
        ),
        (
            "f(*args, **kwargs)\nOverloaded function.\n\n1. f(self: A) -> int\n\nText\n\n"
            "2. f(self: A, x: int) -> A\n",
            [Signature((), "int"), Signature((Parameter("x", "int"),), "A")],
        ),
        (
            "(arg0: A, arg1: str) -> None\n",
            [Signature((Parameter("arg1", "str", positional_only=True),), "None")],
        ),
    ],
)
def test_docstrings_of_pybind11_are_read(doc, expected):
    assert list(pybind_signatures(doc, ("A", "B"))) == expected


def test_our_modules_import_the_fakes_within_and_are_restored_afterwards(monkeypatch):
    from types import ModuleType

    from service import engines
    from tests.vendor.fixtures import installed

    name = "service.engines.tensorrt_engine"
    earlier, fake = ModuleType(name), ModuleType("tensorrt")
    monkeypatch.setitem(sys.modules, name, earlier)
    monkeypatch.setattr(engines, "tensorrt_engine", earlier, raising=False)
    with installed(fake, ModuleType("cuda.bindings.runtime")):
        assert sys.modules["tensorrt"] is fake
        assert name not in sys.modules
        assert not hasattr(engines, "tensorrt_engine")
    assert sys.modules[name] is engines.tensorrt_engine is earlier
    assert sys.modules.get("tensorrt") is not fake


def test_a_missing_wheel_is_reported(tmp_path):
    (tmp_path / "10").mkdir()
    (tmp_path / "10" / "tensorrt_cu13_bindings-10.0-cp38-none-any.whl").touch()
    with pytest.raises(Unreadable, match=r"no wheel in .*/10 fits cp3\d+: make test"):
        find_wheel("10", tmp_path)
