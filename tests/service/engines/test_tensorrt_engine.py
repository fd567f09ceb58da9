"""The engine on fakes of TensorRT and CUDA (tests/vendor), with the interface of 10 and of 11."""

import logging

import numpy as np
import pytest

from quantizer.compile.builder import Candidate
from quantizer.compile.load import load_builder
from quantizer.model.float_model import read_float_model
from service.engines import gpu, load_engine
from service.errors import DeviceUnavailable, EngineFailed
from service.vision.preprocess import PREPROCESS, tensor_of
from tests.quantizer.graphs import by_onnxruntime
from tests.quantizer.machines import NO_DRIVER, RTX_4090
from tests.tiny_models import SIZE, save_tiny

IMAGE = np.random.default_rng(3).random((1, 3, SIZE, SIZE), np.float32)


@pytest.fixture
def built(nvidia, monkeypatch, tmp_path):
    """A folder with one float32 engine, its variant, and its graph."""
    monkeypatch.setattr(gpu, "find_gpu", lambda: RTX_4090)
    graph = read_float_model(save_tiny(tmp_path, "yolov5"), SIZE).model
    made = load_builder("tensorrt", 1).build(Candidate("fp32", graph), tmp_path)
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
    nvidia.device.require_clean()


@pytest.mark.parametrize(("variant", "float_type"), [("fp32", "f32"), ("fp16", "f16")])
def test_bytes_are_divided(nvidia, monkeypatch, tmp_path, variant, float_type):
    monkeypatch.setattr(gpu, "find_gpu", lambda: RTX_4090)
    graph = read_float_model(save_tiny(tmp_path, "yolov5"), SIZE).model
    made = load_builder("tensorrt", 1).build(Candidate(variant, graph, float_type), tmp_path)
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
    nvidia.device.require_clean()


@pytest.mark.parametrize("what", ["deserialize", "context"])
def test_a_plan_that_cannot_be_loaded_fails_with_tensorrts_reason(nvidia, built, what):
    nvidia.tensorrt.fail(what)
    with pytest.raises(EngineFailed, match=r"TensorRT could not (load|prepare) the plan: "):
        load_engine(*built[:2])
    nvidia.device.require_clean()


@pytest.mark.parametrize(
    ("call", "after"), [("cudaStreamCreate", 0), ("cudaMallocHost", 1), ("cudaMalloc", 1)]
)
def test_a_failed_allocation_is_an_error_and_frees_everything(nvidia, built, call, after):
    nvidia.cuda.fail(call, "cudaErrorMemoryAllocation", after=after)
    with pytest.raises(EngineFailed, match="CUDA: "):
        load_engine(*built[:2])
    nvidia.device.require_clean()


@pytest.mark.parametrize("after", [0, 1])
def test_an_inference_that_fails_during_loading_frees_everything(nvidia, built, after):
    nvidia.tensorrt.fail("execute", calls=1, after=after)
    if after:  # while recording: the engine works without a CUDA graph
        load_engine(*built[:2]).close()
    else:
        with pytest.raises(EngineFailed, match="could not run the model"):
            load_engine(*built[:2])
    nvidia.device.require_clean()


def test_a_failed_inference_is_an_error_and_the_next_one_works(nvidia, built):
    folder, variant, graph = built
    engine = load_engine(folder, variant)
    nvidia.cuda.fail("cudaGraphLaunch", "cudaErrorLaunchFailure")
    with pytest.raises(EngineFailed, match="CUDA: "):
        engine.infer_tensor(IMAGE)
    np.testing.assert_allclose(engine.infer_tensor(IMAGE), by_onnxruntime(graph, IMAGE), rtol=1e-4)
    engine.close()
    nvidia.device.require_clean()


def test_a_plan_for_another_gpu_or_version_is_not_loaded(nvidia, built):
    folder, variant, _ = built
    nvidia.tensorrt.fail("deserialize")  # fails the test if it is called
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
    with pytest.raises(EngineFailed, match="no plan"):
        load_engine(folder, variant.model_copy(update={"blob": None}))
