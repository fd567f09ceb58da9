"""Reading our source: what it uses is found, what would fail is told, what is unclear as well."""

from textwrap import dedent

import pytest

from tests.vendor.fit import misfits
from tests.vendor.usage import Usage, read_usage

BUILD = """
import tensorrt as trt

class Log(trt.ILogger):
    def __init__(self) -> None:
        trt.ILogger.__init__(self)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        print(msg)

class Build:
    def __init__(self) -> None:
        self._builder = trt.Builder(Log())

    def plan(self, graph: bytes, limit: int) -> bytes:
        network = self._builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.{FLAG}))
        parser = trt.OnnxParser(network, Log())
        if not parser.parse(graph):
            errors = [parser.get_error(index) for index in range(parser.num_errors)]
            raise ValueError(" ".join(error.desc() for error in errors))
        config = self._builder.create_builder_config()
        config.{LIMIT}(trt.MemoryPoolType.WORKSPACE, limit)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        return bytes(self._builder.build_serialized_network(network, config))
"""


def build(FLAG="STRONGLY_TYPED", LIMIT="set_memory_pool_limit") -> str:
    return BUILD.replace("{FLAG}", FLAG).replace("{LIMIT}", LIMIT)


def snippet(body: str, inventory) -> Usage:
    return read_usage(f"import tensorrt as trt\n{dedent(body)}", inventory)


def told(body: str, inventory) -> list[str]:
    usage = snippet(body, inventory)
    assert usage.unresolved == ()
    start = f": tensorrt {inventory.version}: "
    return [each.partition(start)[2] for each in misfits(usage, inventory)]


def test_source_that_fits_is_followed_to_every_use(tensorrt_inventory):
    usage = read_usage(build(), tensorrt_inventory)
    assert usage.unresolved == ()
    assert misfits(usage, tensorrt_inventory) == []
    uses = {(use.path, use.how) for use in usage.uses}
    assert {
        ("Builder", "call"),
        ("Builder.create_network", "call"),
        ("IBuilderConfig.set_memory_pool_limit", "call"),
        ("IBuilderConfig.profiling_verbosity", "set"),
        ("IHostMemory", "buffer"),
        ("ILogger.log", "override"),
        ("MemoryPoolType.WORKSPACE", "read"),
        ("OnnxParser.num_errors", "read"),
        ("ParserError.desc", "call"),
    } <= uses


def test_a_method_by_a_wrong_name_is_found(tensorrt_inventory):
    usage = read_usage(build(LIMIT="set_memory_pool_limits"), tensorrt_inventory)
    (problem,) = misfits(usage, tensorrt_inventory)
    assert problem.startswith("line 22: tensorrt ")
    assert problem.endswith("there is no IBuilderConfig.set_memory_pool_limits")


def test_an_enum_member_that_one_version_lacks_is_found(tensorrt_10, tensorrt_11):
    source = build(FLAG="EXPLICIT_BATCH")
    assert misfits(read_usage(source, tensorrt_10), tensorrt_10) == []
    (problem,) = misfits(read_usage(source, tensorrt_11), tensorrt_11)
    assert problem.endswith("there is no NetworkDefinitionCreationFlag.EXPLICIT_BATCH")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("trt.Builders", "there is no Builders"),
        ("trt.Builder()", "Builder(), but it takes (logger: ILogger) -> None"),
        ("from tensorrt import Bilder", "there is no Bilder"),
        ("trt.IBuilderConfig()", "IBuilderConfig cannot be called"),
        (
            "def f(e: trt.ICudaEngine): e.num_io_tensors = 1",
            "ICudaEngine.num_io_tensors cannot be set",
        ),
        ("def f(e: trt.ICudaEngine): bytes(e)", "ICudaEngine is no buffer"),
        ("def f(e: trt.ICudaEngine): len(e)", "there is no ICudaEngine.__len__"),
        ("def f(b: trt.Builder): list(b)", "Builder is no sequence"),
        ("def f(b: trt.Builder): b.gpu_allocator", "Builder.gpu_allocator cannot be read"),
        ("def f(e: 'trt.ICudaEngine | None'): e.nome", "there is no ICudaEngine.nome"),
        ("def f(*e: trt.ILayer):\n  for x in e: x.nome", "there is no ILayer.nome"),
        ("def f(e: dict[str, trt.ILayer]): e['x'].nome", "there is no ILayer.nome"),
        ("def f(e: trt.ICudaEngine):\n  with e as x: x.nome", "there is no ICudaEngine.nome"),
        ("def f(c: trt.IExecutionContext): c.engine.nome", "there is no ICudaEngine.nome"),
        ("def f(e: trt.ICudaEngine): (e.serialize() or None).nome", "there is no IHostMemory.nome"),
        ("trt.ILogger.Severity.FATAL", "there is no ILogger.Severity.FATAL"),
        ("trt.float16.nome", "there is no DataType.nome"),
        ("class L(trt.ILogger): ...", "ILogger.log is not overridden"),
        ("class C(trt.IBuilderConfig):\n  pass", "IBuilderConfig cannot be inherited from"),
    ],
)
def test_what_would_fail_is_told(body, problem, tensorrt_11):
    assert problem in told(body, tensorrt_11)


def test_an_override_must_take_what_it_is_given(tensorrt_11):
    body = """
    class P(trt.IProfiler):
        def report_layer_time(self, name):
            self.nome
    """
    assert told(body, tensorrt_11) == [
        "IProfiler.report_layer_time is called with (layer_name: str, ms: typing.SupportsFloat)"
        " -> None",
        "there is no IProfiler.nome",
    ]


def test_arguments_are_counted_through_a_tuple_that_is_spread(tensorrt_11):
    body = "def f(b: trt.Builder):\n  args = (1, 2)\n  b.create_network(*args)"
    (problem,) = told(body, tensorrt_11)
    assert problem.startswith("Builder.create_network(_, _), but it takes (flags:")


def test_attributes_are_known_before_they_are_set(tensorrt_11):
    body = """
    class Engine:
        def use(self):
            self._context.nome

        def load(self, engine: trt.ICudaEngine):
            self._context = engine.create_execution_context()

        def close(self):
            self._context = None
    """
    assert told(body, tensorrt_11) == ["there is no IExecutionContext.nome"]


@pytest.mark.parametrize(
    "body",
    [
        "def f(builder): builder.create_network()",
        "def f(builder: Any): builder.create_network()",
        "def f(b: trt.Builder, args: list[int]): b.create_network(*args)",
        "def f(b: trt.Builder, given): b.create_network(**given)",
        "def f(name: str): getattr(trt, name)",
        "from tensorrt import *",
        "def made(): ...\nmade().create_network()",
        "from service.engines.tensorrt_engine import load\nload().get_tensor_name(0)",
        "def f(b: trt.Builder, c: trt.Runtime, x: bool): (b if x else c).logger",
        "trt.get_plugin_registry().parent_search_enabled",
    ],
)
def test_what_cannot_be_typed_is_unresolved(body, tensorrt_11):
    assert len(snippet(body, tensorrt_11).unresolved) == 1


@pytest.mark.parametrize(
    "body",
    [
        "def f(path: Path): path.name",
        "getattr(trt.BuilderFlag, 'FP16', None)",
        "hasattr(trt, 'IInt8Calibrator')",
        "for member in trt.BuilderFlag.__members__.values(): member.name",
        "names = []\nnames.append(trt.__version__)",
        "def f(*, log: logging.Logger): log.log(1, 'x')",
    ],
)
def test_what_is_not_the_vendors_or_asked_for_with_care_is_fine(body, tensorrt_11):
    assert told(body, tensorrt_11) == []


def test_a_file_without_the_import_uses_nothing(tensorrt_11):
    assert read_usage("def f(b): b.create_network()", tensorrt_11) == Usage((), ())


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("cudart.cudaMalloc()", "cudaMalloc(), but it takes (size: size_t)"),
        ("cudart.cudaMaloc(4)", "there is no cudaMaloc"),
        ("cudart.cudaMemcpyKind.HostToDevice", "there is no cudaMemcpyKind.HostToDevice"),
        ("_, x = cudart.cudaStreamCreate()\nx.nome", "there is no cudaStream_t.nome"),
        ("e, *x = cudart.cudaStreamCreate()\nx[0].nome", "there is no cudaStream_t.nome"),
    ],
)
@pytest.mark.parametrize(
    "line",
    ["from cuda.bindings import runtime as cudart", "import cuda.bindings.runtime as cudart"],
)
def test_cuda_is_read_as_well(line, body, problem, cuda_inventory):
    usage = read_usage(f"{line}\n{body}", cuda_inventory)
    (found,) = misfits(usage, cuda_inventory)
    assert problem in found
    assert usage.unresolved == ()
