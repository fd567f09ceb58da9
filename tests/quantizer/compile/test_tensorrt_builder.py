"""The builder on a fake TensorRT that accepts only what the real bindings accept.

See tests/vendor: each test runs with the interface of TensorRT 10 and of 11.
"""

import json
import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from quantizer import job
from quantizer.build import build
from quantizer.compile.builder import Candidate, Resources
from quantizer.compile.load import load_builder
from quantizer.config import BuildConfig
from quantizer.errors import BuildFailed
from quantizer.int8 import Scheme
from quantizer.model.graph import Graph
from quantizer.qdq.format import TENSORRT
from quantizer.qdq.placement import plan_placement
from service.engines import gpu
from service.errors import DeviceUnavailable
from service.inference.variants import load_variants
from service.manifest import read_manifest
from service.progress import Progress
from service.vision.image import Photo
from service.vision.postprocess import Query
from tests.quantizer.graphs import graph_of, quantized
from tests.quantizer.machines import NO_DRIVER, RTX_4090, machine
from tests.tiny_models import SIZE, save_tiny


@pytest.fixture
def tensorrt(nvidia, monkeypatch):
    """The fake, on a machine with a GPU."""
    monkeypatch.setattr(gpu, "find_gpu", lambda: RTX_4090)
    return nvidia.tensorrt


@pytest.fixture
def graph() -> Graph:
    return graph_of("yolov5")


@pytest.fixture
def int8(graph) -> onnx.ModelProto:
    return quantized(graph, Scheme(symmetric=True, half=True), TENSORRT)


def builder_of(resources: Resources = Resources(), report=lambda progress: None):  # noqa: B008
    return load_builder("tensorrt", 1, resources, report)


def test_the_network_is_strongly_typed_and_the_graph_beside_the_plan_is_the_one_built(
    tensorrt, int8, tmp_path
):
    built = builder_of().build(Candidate("int8", int8, "f16"), tmp_path)
    (done,) = tensorrt.builds
    assert done.network_flags == {"STRONGLY_TYPED"}
    assert not done.flags & {"INT8", "FP16", "TF32", "BF16"}
    assert done.verbosity == "DETAILED"
    assert built.variant.float_type == "f16"
    key = f"tensorrt-{tensorrt.interface.version}-{RTX_4090.fingerprint}"
    assert built.variant.blob_key == key
    kept = onnx.load(tmp_path / built.variant.model)
    assert kept == done.model
    weights = {tensor.data_type for tensor in kept.graph.initializer}
    assert {TensorProto.INT8, TensorProto.FLOAT16} <= weights


@pytest.mark.parametrize("float_type", ["f32", "f16"])
def test_the_executed_precision_of_each_convolution_is_reported(
    tensorrt, graph, int8, tmp_path, float_type
):
    builder = builder_of()
    built = builder.build(Candidate("int8", int8, float_type), tmp_path)
    assert set(built.executed.values()) == {"i8"}
    assert built.executed.keys() == set(plan_placement(graph).layers)
    assert any(layer.precision == float_type for layer in built.layers)
    floats = builder.build(Candidate("fp32", graph.model), tmp_path)
    assert set(floats.executed.values()) == {"f32"}


def test_a_profile_has_the_time_and_the_precision_of_each_convolution(
    nvidia, tensorrt, graph, int8
):
    builder = builder_of()
    before, after = builder.profile(graph.model), builder.profile(int8)
    assert set(before.executed.values()) == {"f16"}
    assert set(after.executed.values()) == {"i8"}
    assert before.ms.keys() == after.ms.keys() == set(plan_placement(graph).layers)
    assert all(ms > 0 for ms in before.ms.values())
    nvidia.device.require_clean()


def test_progress_is_that_of_tensorrt(tensorrt, graph, tmp_path):
    seen: list[Progress] = []
    builder_of(report=seen.append).build(Candidate("fp32", graph.model), tmp_path)
    assert {step.phase for step in seen} == {"compile fp32"}
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert seen[-1].done == seen[-1].total > 0


def test_an_error_while_progress_is_reported_ends_the_build(tensorrt, graph, tmp_path):
    def broken(progress: Progress) -> None:
        raise BrokenPipeError

    with pytest.raises((BrokenPipeError, BuildFailed)):
        builder_of(report=broken).build(Candidate("fp32", graph.model), tmp_path)


def test_the_workspace_is_limited_only_on_request(tensorrt, graph, tmp_path):
    builder_of().build(Candidate("fp32", graph.model), tmp_path)
    builder_of(Resources(workspace_mib=512)).build(Candidate("fp16", graph.model, "f16"), tmp_path)
    free, limited = tensorrt.builds
    assert limited.workspace == 512 << 20
    assert free.workspace > 512 << 20  # TensorRT's own limit


def test_kernel_timings_are_kept_for_the_next_build(tensorrt, graph, tmp_path):
    resources = Resources(timing_caches=tmp_path / "timings")

    def timed_before(name: str) -> tuple[str, ...]:
        builder_of(resources).build(Candidate("fp32", graph.model), tmp_path / name)
        return tensorrt.builds[-1].cached

    assert timed_before("first") == ()
    assert timed_before("second") != ()
    (kept,) = resources.timing_caches.iterdir()
    assert RTX_4090.fingerprint in kept.name
    kept.write_bytes(b"not a timing cache")
    assert timed_before("third") == ()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("parse", r"read the fp32 graph: /1/Conv \(Conv\): no kernel of this shape"),
        ("build", r"cannot build the fp32 engine: Could not .+workspace"),
        ("deserialize", r"cannot load its own plan: The plan was not made by TensorRT"),
    ],
)
def test_a_failure_has_the_reason_that_tensorrt_gives(tensorrt, graph, tmp_path, what, message):
    tensorrt.fail(what)
    tensorrt.parser_error = ("/1/Conv", "Conv", "no kernel of this shape")
    with pytest.raises(BuildFailed, match=message):
        builder_of().build(Candidate("fp32", graph.model), tmp_path)


def test_a_graph_that_breaks_a_rule_is_refused_before_tensorrt_builds_it(tensorrt, graph, tmp_path):
    asymmetric = quantized(graph, Scheme())
    with pytest.raises(BuildFailed, match="cannot build the int8 graph: "):
        builder_of().build(Candidate("int8", asymmetric), tmp_path)
    assert tensorrt.builds == []


def test_rules_broken_at_the_cost_of_speed_are_logged(tensorrt, int8, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        builder_of().build(Candidate("int8", int8), tmp_path)
    assert "convolution_has_an_int8_kernel is broken" in caplog.text
    assert "TensorRT built int8 in" in caplog.text


def test_there_is_no_builder_without_a_gpu(nvidia, monkeypatch):
    monkeypatch.setattr(gpu, "find_gpu", lambda: NO_DRIVER)
    with pytest.raises(DeviceUnavailable, match="no NVIDIA driver here"):
        builder_of()


def test_the_whole_build_ends_in_a_folder_that_serves(
    nvidia, tensorrt, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(job, "detect", lambda: machine(RTX_4090, tensorrt="a version"))
    folder = tmp_path / "built"
    folder.mkdir()
    config = BuildConfig(save_tiny(tmp_path, "yolov5"), photos, size=SIZE, threads=1)
    report = build(config, folder, lambda progress: None)
    manifest = read_manifest(folder)
    assert manifest.device == "gpu"
    assert manifest.variants.keys() == {"fp32", "fp16", "int8"}
    assert report.options.runtime == "tensorrt"
    assert report.options.symmetric
    assert report.int8_convolutions.executed == report.int8_convolutions.planned > 0
    written = json.loads((folder / "report.json").read_text())
    assert written["engine_layers"].keys() == manifest.variants.keys()
    assert "engine-int8" in (folder / "report.html").read_text()
    variants = load_variants(folder, 1)
    picture = Photo.from_pixels(np.random.default_rng(5).integers(0, 256, (60, 80, 3), np.uint8))
    counts = [len(variants.get(name).detect(picture, Query(conf=0.01))) for name in variants.names]
    assert min(counts) > 0
    variants.close()
    nvidia.device.require_clean()
