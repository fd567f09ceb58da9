"""The engine of plans by the real compiler, on a fake of the driver (tests/vendor)."""

import logging

import numpy as np
import pytest

from quantizer.compile.builder import Candidate
from quantizer.compile.load import load_builder
from quantizer.model.float_model import read_float_model
from service.engines import load_engine
from service.errors import DeviceUnavailable, EngineFailed
from service.manifest import LOCAL
from service.vision.preprocess import PREPROCESS, tensor_of
from tests.quantizer.graphs import by_onnxruntime
from tests.quantizer.machines import NO_DRIVER
from tests.tiny_models import SIZE, save_tiny

IMAGE = np.random.default_rng(3).random((1, 3, SIZE, SIZE), np.float32)


@pytest.fixture
def built(nvidia, tmp_path):
    """A folder with one float32 engine, its variant, and its graph."""
    graph = read_float_model(save_tiny(tmp_path, "yolov5"), SIZE).model
    made = load_builder(nvidia.runtime, 1).build(Candidate("fp32", graph), tmp_path)
    return tmp_path, made.variant, graph


def test_an_inference_is_one_launch_and_returns_the_output_of_the_graph(nvidia, built):
    folder, variant, graph = built
    engine = load_engine(folder, variant)
    before = dict(nvidia.cuda.calls)
    first = engine.infer_tensor(IMAGE)
    calls = {name for name, count in nvidia.cuda.calls.items() if count > before.get(name, 0)}
    assert calls == {"cudaGraphLaunch", "cudaStreamSynchronize"}
    kept, other = first.copy(), IMAGE[:, :, ::-1].copy()
    np.testing.assert_allclose(engine.infer_tensor(other), by_onnxruntime(graph, other), rtol=1e-4)
    np.testing.assert_array_equal(first, kept)  # the array is the caller's
    np.testing.assert_allclose(first, by_onnxruntime(graph, IMAGE), rtol=1e-4)
    engine.close()
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        engine.infer_tensor(IMAGE)
    nvidia.cuda.require_clean()


@pytest.mark.parametrize(("variant", "float_type"), [("fp32", "f32"), ("fp16", "f16")])
def test_bytes_are_divided(rtx, tmp_path, variant, float_type):
    graph = read_float_model(save_tiny(tmp_path, "yolov5"), SIZE).model
    made = load_builder("tensorrt-rtx", 1).build(Candidate(variant, graph, float_type), tmp_path)
    engine = load_engine(tmp_path, made.variant)
    image = np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    expected = engine.infer_tensor(tensor_of(image, PREPROCESS["yolo"]))
    np.testing.assert_array_equal(engine.infer(image)[0], expected)
    engine.close()


def test_without_a_cuda_graph_each_step_is_launched(nvidia, built, caplog):
    folder, variant, graph = built
    nvidia.cuda.fail("cudaStreamBeginCapture", "cudaErrorStreamCaptureUnsupported")
    with caplog.at_level(logging.WARNING):
        engine = load_engine(folder, variant)
    assert "not recorded" in caplog.text
    np.testing.assert_allclose(engine.infer_tensor(IMAGE), by_onnxruntime(graph, IMAGE), rtol=1e-4)
    engine.close()
    nvidia.cuda.require_clean()


@pytest.mark.parametrize("what", ["deserialize", "context"])
def test_a_plan_that_cannot_be_loaded_fails_with_tensorrts_reason(nvidia, built, what):
    nvidia.fail(what)
    with pytest.raises(EngineFailed, match=r"could not (load|prepare) the plan: Cuda"):
        load_engine(*built[:2])
    nvidia.cuda.require_clean()


@pytest.mark.parametrize(
    ("call", "after"), [("cudaStreamCreate", 0), ("cudaMallocHost", 1), ("cudaMalloc", 1)]
)
def test_a_failed_allocation_is_an_error_and_frees_everything(nvidia, built, call, after):
    nvidia.cuda.fail(call, "cudaErrorMemoryAllocation", after=after)
    with pytest.raises(EngineFailed, match="CUDA: "):
        load_engine(*built[:2])
    nvidia.cuda.require_clean()


@pytest.mark.parametrize("after", [0, 1])
def test_an_inference_that_fails_during_loading_frees_everything(nvidia, built, after):
    nvidia.fail("execute", calls=1, after=after)
    if after:  # while recording: the engine works without a CUDA graph
        load_engine(*built[:2]).close()
    else:
        with pytest.raises(EngineFailed, match="could not run the model"):
            load_engine(*built[:2])
    nvidia.cuda.require_clean()


def test_a_failed_inference_is_an_error_and_the_next_one_works(nvidia, built):
    folder, variant, graph = built
    engine = load_engine(folder, variant)
    nvidia.cuda.fail("cudaGraphLaunch", "cudaErrorLaunchFailure")
    with pytest.raises(EngineFailed, match="CUDA: "):
        engine.infer_tensor(IMAGE)
    np.testing.assert_allclose(engine.infer_tensor(IMAGE), by_onnxruntime(graph, IMAGE), rtol=1e-4)
    engine.close()
    nvidia.cuda.require_clean()


def test_a_plan_for_another_gpu_or_version_is_not_loaded(nvidia, built):
    folder, variant, _ = built
    nvidia.fail("deserialize")  # fails the test if it is called
    stale = variant.model_copy(update={"blob_key": "tensorrt-9.0-NVIDIA-T4-sm75"})
    with pytest.raises(DeviceUnavailable, match=r"was built for tensorrt-9\.0-NVIDIA-T4"):
        load_engine(folder, stale)


def test_without_a_gpu_the_error_has_the_reason(built, monkeypatch):
    from service.engines import tensorrt_engine

    monkeypatch.setattr(tensorrt_engine, "find_gpu", lambda: NO_DRIVER)
    with pytest.raises(DeviceUnavailable, match="no NVIDIA driver here"):
        load_engine(*built[:2])


def test_a_variant_without_a_plan_fails(built):
    folder, variant, _ = built
    with pytest.raises((EngineFailed, DeviceUnavailable), match=r"no plan|was built for"):
        load_engine(folder, variant.model_copy(update={"blob": None, "plans": {}}))


def test_kernels_made_at_the_first_start_are_offered_to_the_next(rtx, tmp_path):
    graph = read_float_model(save_tiny(tmp_path, "yolov5"), SIZE).model
    variant = load_builder("tensorrt-rtx", 1).build(Candidate("fp32", graph), tmp_path).variant
    load_engine(tmp_path, variant).close()
    assert rtx.offered == []
    (kept,) = (tmp_path / LOCAL).iterdir()
    load_engine(tmp_path, variant).close()
    assert rtx.offered == [kept.read_bytes()]
    kept.write_bytes(b"kernels of another driver")
    load_engine(tmp_path, variant).close()
    assert kept.read_bytes() == rtx.offered[0]


def test_the_fake_has_only_what_the_real_bindings_have(rtx):
    """Of the classes that cannot be made without a driver."""
    from tests.vendor import fake_engine

    for name, real in (
        ("Runtime", "Runtime"),
        ("Engine", "ICudaEngine"),
        ("Context", "IExecutionContext"),
        ("RuntimeConfig", "IRuntimeConfig"),
        ("RuntimeCache", "IRuntimeCache"),
    ):
        ours = {each for each in vars(getattr(fake_engine, name)) if not each.startswith("_")}
        assert ours <= set(dir(getattr(rtx.real, real))), name
