"""The engine of plans by the real compiler, on a fake of the driver (tests/vendor)."""

import logging
import shutil

import numpy as np
import pytest

from quantizer.compile.builder import Candidate
from quantizer.compile.load import load_builder
from quantizer.model.execution import open_session
from quantizer.model.serving_graph import BYTES
from service.engines import load_engine
from service.errors import DeviceUnavailable, EngineFailed
from service.manifest import LOCAL
from service.vision.preprocess import PREPROCESS, tensor_of
from tests.quantizer.graphs import by_onnxruntime, graph_of, maps_of
from tests.quantizer.machines import NO_DRIVER
from tests.tiny_models import SIZE

CANVAS = np.random.default_rng(3).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
IMAGE = tensor_of(CANVAS, PREPROCESS["yolo"])


def candidate() -> Candidate:
    return Candidate("fp32", graph_of("yolov5").model, maps=maps_of("yolov5"))


@pytest.fixture(scope="module")
def builds():
    """By runtime: a folder with one float32 engine, and its variant; the first test compiles it."""
    return {}


@pytest.fixture
def built(nvidia, builds, tmp_path, tmp_path_factory):
    """Such a folder of the test's own, and its variant."""
    runtime = nvidia.runtime
    if runtime in builds:
        folder, variant = builds[runtime]
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    else:
        variant = load_builder(runtime, 1).build(candidate(), tmp_path).variant
        folder = shutil.copytree(tmp_path, tmp_path_factory.mktemp("built") / runtime)
        builds[runtime] = folder, variant
    return tmp_path, variant


def expected(canvas=CANVAS) -> list[np.ndarray]:
    """The best anchors, by ONNX Runtime."""
    return open_session(candidate().gpu_graph(), 1).run(None, {BYTES: canvas})


def assert_infers(engine, canvas=CANVAS) -> None:
    outputs = engine.infer(canvas)
    for ours, theirs in zip(outputs, expected(canvas), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_an_inference_is_one_launch_and_returns_the_best_anchors(nvidia, built):
    engine = load_engine(*built)
    before = dict(nvidia.cuda.calls)
    first = engine.infer(CANVAS)
    calls = {name for name, count in nvidia.cuda.calls.items() if count > before.get(name, 0)}
    assert calls == {"cudaGraphLaunch", "cudaStreamSynchronize"}
    kept = [each.copy() for each in first]
    assert_infers(engine, CANVAS[:, ::-1].copy())
    for ours, before_it in zip(first, kept, strict=True):
        np.testing.assert_array_equal(ours, before_it)  # the arrays are the caller's
    assert_infers(engine)
    engine.close()
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        engine.infer(CANVAS)
    with pytest.raises(EngineFailed, match="closed"):
        engine.infer_tensor(IMAGE)
    nvidia.cuda.require_clean()


def test_the_plan_for_tensors_is_loaded_when_the_first_one_comes(nvidia, built):
    engine = load_engine(*built)
    streams = nvidia.cuda.calls["cudaStreamCreate"]
    raw = by_onnxruntime(candidate().graph, IMAGE)
    for _ in range(2):
        np.testing.assert_allclose(engine.infer_tensor(IMAGE), raw, rtol=1e-4)
    assert nvidia.cuda.calls["cudaStreamCreate"] == streams + 1
    assert_infers(engine)
    engine.close()
    nvidia.cuda.require_clean()


def test_without_the_plan_for_tensors_images_are_still_inferred(nvidia, built):
    folder, variant = built
    engine = load_engine(folder, variant)
    for plan in (folder / variant.raw).parent.glob("*.plan"):
        plan.unlink()
    with pytest.raises(EngineFailed, match="the plan cannot be read"):
        engine.infer_tensor(IMAGE)
    assert_infers(engine)
    engine.close()
    nvidia.cuda.require_clean()


def test_a_folder_of_an_earlier_version_has_the_whole_graph_only(nvidia, built):
    folder, variant = built
    shutil.copytree((folder / variant.raw).parent, folder / "fp32", dirs_exist_ok=True)
    engine = load_engine(folder, variant.model_copy(update={"raw": None}))
    (raw,) = engine.infer(CANVAS)
    np.testing.assert_allclose(raw, by_onnxruntime(candidate().graph, IMAGE), rtol=1e-4)
    np.testing.assert_array_equal(engine.infer_tensor(IMAGE), raw)
    engine.close()
    nvidia.cuda.require_clean()


def test_without_a_cuda_graph_each_step_is_launched(nvidia, built, caplog):
    nvidia.cuda.fail("cudaStreamBeginCapture", "cudaErrorStreamCaptureUnsupported")
    with caplog.at_level(logging.WARNING):
        engine = load_engine(*built)
    assert "not recorded" in caplog.text
    assert_infers(engine)
    engine.close()
    nvidia.cuda.require_clean()


@pytest.mark.parametrize("what", ["deserialize", "context"])
def test_a_plan_that_cannot_be_loaded_fails_with_tensorrts_reason(nvidia, built, what):
    nvidia.fail(what)
    with pytest.raises(EngineFailed, match=r"could not (load|prepare) the plan: Cuda"):
        load_engine(*built)
    nvidia.cuda.require_clean()


@pytest.mark.parametrize(
    ("call", "after"), [("cudaStreamCreate", 0), ("cudaMallocHost", 1), ("cudaMalloc", 1)]
)
def test_a_failed_allocation_is_an_error_and_frees_everything(nvidia, built, call, after):
    nvidia.cuda.fail(call, "cudaErrorMemoryAllocation", after=after)
    with pytest.raises(EngineFailed, match="CUDA: "):
        load_engine(*built)
    nvidia.cuda.require_clean()


@pytest.mark.parametrize("after", [0, 1])
def test_an_inference_that_fails_during_loading_frees_everything(nvidia, built, after):
    nvidia.fail("execute", calls=1, after=after)
    if after:  # while recording: the engine works without a CUDA graph
        load_engine(*built).close()
    else:
        with pytest.raises(EngineFailed, match="could not run the model"):
            load_engine(*built)
    nvidia.cuda.require_clean()


def test_a_failed_inference_is_an_error_and_the_next_one_works(nvidia, built):
    engine = load_engine(*built)
    nvidia.cuda.fail("cudaGraphLaunch", "cudaErrorLaunchFailure")
    with pytest.raises(EngineFailed, match="CUDA: "):
        engine.infer(CANVAS)
    assert_infers(engine)
    engine.close()
    nvidia.cuda.require_clean()


def test_a_plan_for_another_gpu_or_version_is_not_loaded(nvidia, built):
    folder, variant = built
    nvidia.fail("deserialize")  # fails the test if it is called
    stale = variant.model_copy(update={"blob_key": "tensorrt-9.0-NVIDIA-T4-sm75"})
    with pytest.raises(DeviceUnavailable, match=r"was built for tensorrt-9\.0-NVIDIA-T4"):
        load_engine(folder, stale)


def test_without_a_gpu_the_error_has_the_reason(built, monkeypatch):
    from service.engines import tensorrt_engine

    monkeypatch.setattr(tensorrt_engine, "find_gpu", lambda: NO_DRIVER)
    with pytest.raises(DeviceUnavailable, match="no NVIDIA driver here"):
        load_engine(*built)


def test_a_variant_without_a_plan_fails(built):
    folder, variant = built
    with pytest.raises((EngineFailed, DeviceUnavailable), match=r"no plan|was built for"):
        load_engine(folder, variant.model_copy(update={"blob": None, "plans": {}}))


def test_kernels_made_at_the_first_start_are_offered_to_the_next(rtx, tmp_path):
    variant = load_builder("tensorrt-rtx", 1).build(candidate(), tmp_path).variant
    load_engine(tmp_path, variant).close()
    assert rtx.offered == []
    (kept,) = (tmp_path / LOCAL).iterdir()
    load_engine(tmp_path, variant).close()
    assert rtx.offered == [kept.read_bytes()]
    kept.write_bytes(b"kernels of another driver")
    load_engine(tmp_path, variant).close()
    assert kept.read_bytes() == rtx.offered[0]
    engine = load_engine(tmp_path, variant)
    engine.infer_tensor(IMAGE)
    engine.close()
    assert sum(1 for _ in kept.parent.iterdir()) == 2  # those of the whole graph, too


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
