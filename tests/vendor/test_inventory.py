"""What is known of NVIDIA's interfaces is what is read of them."""

import inspect
import json
from dataclasses import asdict

import pytest

from tests.vendor.inventory import Parameter, Signature
from tests.vendor.signatures import pybind_signatures


def written(inventory, path: str) -> list[str]:
    owner, _, name = path.rpartition(".")
    signatures = inventory.method(owner, name) if owner else inventory.functions[name]
    return [str(each) for each in signatures]


def test_signatures_are_those_of_the_documentation(tensorrt_inventory):
    assert written(tensorrt_inventory, "Builder.create_network") == [
        "(flags: typing.SupportsInt = 0) -> INetworkDefinition"
    ]
    assert written(tensorrt_inventory, "Builder.__init__") == ["(logger: ILogger) -> None"]
    assert written(tensorrt_inventory, "IBuilderConfig.set_memory_pool_limit") == [
        "(pool: MemoryPoolType, pool_size: typing.SupportsInt) -> None"
    ]


def test_every_overload_is_read(tensorrt_inventory):
    assert written(tensorrt_inventory, "ICudaEngine.create_execution_context") == [
        "(strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC)"
        " -> IExecutionContext",
        "(runtime_config: IRuntimeConfig = None) -> IExecutionContext",
    ]


def test_a_type_that_is_written_in_cpp_gets_its_python_name(tensorrt_inventory):
    assert tensorrt_inventory.method("OnnxParser", "get_error")[0].returns == "ParserError"
    assert tensorrt_inventory.property("IExecutionContext", "engine").gives == "ICudaEngine"


def test_every_type_that_a_signature_names_is_known_or_pythons(tensorrt_inventory):
    known = {*tensorrt_inventory.classes, "int", "str", "bool", "float", "bytes", "None", "object"}
    for each in tensorrt_inventory.classes.values():
        for signatures in each.methods.values():
            for signature in signatures:
                assert (
                    signature.returns in known
                    or "." in signature.returns
                    or (signature.returns.partition("[")[0] in ("list", "tuple", "memoryview"))
                )


def test_a_property_tells_whether_it_can_be_set(tensorrt_inventory):
    settable = tensorrt_inventory.property("IBuilderConfig", "profiling_verbosity")
    assert settable.takes == settable.gives == "ProfilingVerbosity"
    assert tensorrt_inventory.property("ICudaEngine", "num_io_tensors").takes is None
    assert tensorrt_inventory.property("Builder", "gpu_allocator").gives is None


def test_what_is_inherited_is_found(tensorrt_inventory):
    assert tensorrt_inventory.classes["Logger"].bases == ("ILogger",)
    assert tensorrt_inventory.has("IConvolutionLayer.name")
    assert not tensorrt_inventory.has("IConvolutionLayer.nome")


def test_constants_name_what_they_are(tensorrt_inventory):
    assert tensorrt_inventory.constants["float16"] == "DataType.HALF"
    assert tensorrt_inventory.constant("ILogger", "INFO") == "ILogger.Severity.INFO"
    assert tensorrt_inventory.constant("Dims", "MAX_DIMS") == 8
    assert tensorrt_inventory.has("__version__")


def test_only_host_memory_is_a_buffer(tensorrt_inventory):
    assert [each.name for each in tensorrt_inventory.classes.values() if each.buffer] == [
        "IHostMemory"
    ]


def test_version_11_dropped_implicit_quantization(tensorrt_10, tensorrt_11):
    gone = ("BuilderFlag.INT8", "BuilderFlag.FP16", "IInt8Calibrator", "Builder.platform_has_tf32")
    assert all(map(tensorrt_10.has, gone))
    assert not any(map(tensorrt_11.has, gone))
    assert tensorrt_10.version.startswith("10.")
    assert tensorrt_11.version.startswith("11.")


def test_the_same_flag_has_another_number_in_each_version(tensorrt_10, tensorrt_11):
    name = "NetworkDefinitionCreationFlag"
    assert tensorrt_10.classes[name].members["STRONGLY_TYPED"] == 1
    assert tensorrt_11.classes[name].members["STRONGLY_TYPED"] == 0
    assert not tensorrt_11.has(f"{name}.EXPLICIT_BATCH")


def test_an_inventory_can_be_written_as_json(tensorrt_inventory, cuda_inventory):
    for inventory in (tensorrt_inventory, cuda_inventory):
        assert json.loads(json.dumps(asdict(inventory)))["version"] == inventory.version


def test_cuda_functions_tell_what_they_take_and_return(cuda_inventory):
    assert written(cuda_inventory, "cudaMalloc") == ["(size: size_t) -> tuple[cudaError_t, Any]"]
    assert written(cuda_inventory, "cudaMemcpyAsync") == [
        "(dst: object, src: object, count: size_t, kind: cudaMemcpyKind, stream: object)"
        " -> tuple[cudaError_t]"
    ]
    assert written(cuda_inventory, "cudaGetErrorString") == [
        "(error: cudaError_t) -> tuple[cudaError_t, bytes]"
    ]


def test_cuda_parameters_are_those_that_python_sees(cuda_inventory):
    from cuda.bindings import runtime

    for name, (signature,) in cuda_inventory.functions.items():
        seen = list(inspect.signature(getattr(runtime, name)).parameters)
        assert [each.name for each in signature.parameters] == seen


def test_cuda_enums_have_their_members(cuda_inventory):
    assert cuda_inventory.classes["cudaError_t"].members["cudaErrorMemoryAllocation"] == 2
    assert cuda_inventory.has("cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal")


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("f(self: m.A) -> None\n\nText -> more", ["() -> None"]),
        ("f(self: m.A, x: ns::v_1_0::IB, y: other::C) -> m.A", ["(x: B, y: object) -> A"]),
        ("f(self: m.A, x: m.A = None, y: int) -> int", ["(x: A = None, y: int) -> int"]),
        ("f(self: m.A, x: m.A = <A.ONE: 1>, z: str = '') -> a<b>", ["(x: A = A.ONE, z: str = '')"]),
        (
            "f(*args, **kwargs)\nOverloaded function.\n\n1. f(self: m.A) -> int\n\nText\n\n"
            "2. f(self: m.A, in: Sequence[tuple[int, bool]]) -> m.A\n",
            ["() -> int", "(in: Sequence[tuple[int, bool]]) -> A"],
        ),
        ("(arg0: m.A, arg1: str) -> None\n", ["(arg1: str) -> None"]),
    ],
)
def test_docstrings_of_pybind11(doc, expected):
    found = pybind_signatures(doc, "m", ("A", "B"))
    assert [str(each).removesuffix(" -> object") for each in found] == expected


TWO = Signature((Parameter("a", "int"), Parameter("b", "int", "0")), "None")


@pytest.mark.parametrize(
    ("args", "kwargs", "bound"),
    [
        ([1], {}, {"a": 1}),
        ([1], {"b": 2}, {"a": 1, "b": 2}),
        ([], {"b": 2}, None),
        ([1], {"a": 2}, None),
        ([1], {"c": 2}, None),
        ([1, 2, 3], {}, None),
    ],
)
def test_arguments_are_bound_as_python_binds_them(args, kwargs, bound):
    assert TWO.bind(args, kwargs) == bound


def test_what_has_no_name_cannot_be_named():
    signature = Signature((Parameter("arg0", "int", positional_only=True),), "None")
    assert signature.bind([1], {}) == {"arg0": 1}
    assert signature.bind([], {"arg0": 1}) is None
