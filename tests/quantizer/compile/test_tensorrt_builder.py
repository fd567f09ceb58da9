"""The builder with the real compiler; the fake of tests/vendor runs what it has built."""

import json
import logging
import shutil
from dataclasses import replace
from itertools import groupby

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
from quantizer.model.top_anchors import TOP
from quantizer.qdq.format import TENSORRT
from quantizer.qdq.placement import plan_placement
from service.engines import tensorrt_engine
from service.engines.gpu import Gpu, find_gpu
from service.errors import DeviceUnavailable
from service.inference.variants import load_variants
from service.manifest import LOCAL, read_manifest
from service.progress import Progress
from service.vision.image import Photo
from service.vision.postprocess import Query
from tests.quantizer.graphs import graph_of, quantized
from tests.quantizer.machines import NO_DRIVER, RTX_4090, machine
from tests.tiny_models import SIZE, save_tiny


@pytest.fixture
def graph() -> Graph:
    return graph_of("yolov5")


@pytest.fixture
def int8(graph) -> onnx.ModelProto:
    return quantized(graph, Scheme(symmetric=True, half=True), TENSORRT)


def builder_of(nvidia, resources=Resources(), report=lambda progress: None):  # noqa: B008
    return load_builder(nvidia.runtime, 1, resources, report)


def test_the_graph_beside_the_plan_is_the_one_that_was_compiled(nvidia, int8, tmp_path):
    built = builder_of(nvidia).build(Candidate("int8", int8, "f16"), tmp_path)
    assert built.variant.runtime == nvidia.runtime
    assert built.variant.float_type == "f16"
    kept = onnx.load(tmp_path / built.variant.model)
    types = {tensor.data_type for tensor in kept.graph.initializer}
    assert {TensorProto.INT8, TensorProto.FLOAT16} <= types
    version = nvidia.module.__version__
    if nvidia.runtime == "tensorrt":
        assert built.variant.blob_key == f"tensorrt-{version}-{RTX_4090.fingerprint}"
        plan = built.variant.blob
    else:
        assert built.variant.blob_key == f"tensorrt-rtx-{version}"
        plan = built.variant.plans["sm89"]
    assert built.bytes == (tmp_path / plan).stat().st_size > 0


def test_the_precision_of_each_convolution_is_known_before_an_engine_is_kept(rtx, graph, int8):
    builder = builder_of(rtx)
    before, after = builder.executed(graph.model), builder.executed(int8)
    assert before == dict.fromkeys(plan_placement(graph).layers, "f16")
    assert after == dict.fromkeys(plan_placement(graph).layers, "i8")
    rtx.cuda.require_clean()


def test_for_gpus_elsewhere_the_precisions_are_those_of_the_last(rtx, graph, int8):
    builder = load_builder("tensorrt-rtx", 1, targets=("sm75", "sm89"))
    assert builder.executed(int8) == dict.fromkeys(plan_placement(graph).layers, "i8")
    assert rtx.cuda.calls.total() == 0


def test_progress_is_that_of_tensorrt(rtx, graph, tmp_path):
    seen: list[Progress] = []
    builder_of(rtx, report=seen.append).build(Candidate("fp32", graph.model), tmp_path)
    phases = [list(steps) for _, steps in groupby(seen, lambda step: step.phase)]
    assert [steps[0].phase for steps in phases] == ["compile fp32", "compile fp32/raw"]
    for steps in phases:
        assert [step.done for step in steps] == sorted(step.done for step in steps)
        assert steps[-1].done == steps[-1].total > 0


def test_an_error_while_progress_is_reported_ends_the_build(rtx, graph, tmp_path):
    def broken(progress: Progress) -> None:
        raise BrokenPipeError

    with pytest.raises((BrokenPipeError, BuildFailed)):
        builder_of(rtx, report=broken).build(Candidate("fp32", graph.model), tmp_path)


def test_kernel_timings_are_kept_for_the_next_build_on_this_gpu(nvidia, graph, tmp_path, caplog):
    resources = Resources(workspace_mib=512, timing_caches=tmp_path / "timings")

    def compile_to(name: str) -> None:
        builder_of(nvidia, resources).build(Candidate("fp32", graph.model), tmp_path / name)

    compile_to("first")
    if nvidia.runtime == "tensorrt-rtx":  # it times no kernels: it chooses them without the GPU
        assert not resources.timing_caches.exists()
        return
    (kept,) = resources.timing_caches.iterdir()
    assert RTX_4090.fingerprint in kept.name
    kept.write_bytes(b"not a timing cache")
    with caplog.at_level(logging.WARNING):
        compile_to("second")
    assert "the timing cache was rejected" in caplog.text
    assert kept.read_bytes() != b"not a timing cache"


def test_a_plan_that_tensorrt_cannot_load_again_is_a_failure(nvidia, graph, tmp_path):
    nvidia.fail("deserialize")
    builder = builder_of(nvidia)
    if nvidia.runtime == "tensorrt-rtx":  # which has its layers from the compiler's log
        builder.build(Candidate("fp32", graph.model), tmp_path)
    else:
        with pytest.raises(BuildFailed, match="cannot load its own plan: Cuda Runtime"):
            builder.build(Candidate("fp32", graph.model), tmp_path)


def test_there_is_no_builder_without_a_gpu_or_a_target(nvidia, monkeypatch):
    monkeypatch.setattr(tensorrt_engine, "find_gpu", lambda: NO_DRIVER)
    with pytest.raises(DeviceUnavailable, match="needs an NVIDIA GPU: no NVIDIA driver here"):
        builder_of(nvidia)


def config_of(tmp_path, photos, **options: object) -> BuildConfig:
    model = save_tiny(tmp_path, "yolov5")
    return BuildConfig(model, photos, size=SIZE, threads=1, **options)


def boxes_of(variants) -> list[int]:
    picture = Photo.from_pixels(np.random.default_rng(5).integers(0, 256, (60, 80, 3), np.uint8))
    return [len(variants.get(name).detect(picture, Query(conf=0.01))) for name in variants.names]


def test_the_whole_build_ends_in_a_folder_that_serves(nvidia, photos, tmp_path, monkeypatch):
    here = machine(RTX_4090, **{nvidia.runtime.replace("-", "_"): "a version"})
    monkeypatch.setattr(job, "detect", lambda: here)
    folder = tmp_path / "built"
    folder.mkdir()
    report = build(config_of(tmp_path, photos), folder, lambda progress: None)
    manifest = read_manifest(folder)
    assert manifest.device == "gpu"
    assert manifest.timed
    fp8 = {"fp8"} if nvidia.runtime == "tensorrt-rtx" else set()
    assert manifest.variants.keys() == {"fp32", "fp16", "int8"} | fp8
    assert report.options.runtime == nvidia.runtime
    assert report.options.symmetric
    if nvidia.runtime == "tensorrt-rtx":
        assert report.int8_convolutions.executed == report.int8_convolutions.planned > 0
        written = json.loads((folder / "report.json").read_text())
        assert written["engine_layers"].keys() == manifest.variants.keys()
        assert "engine-int8" in (folder / "report.html").read_text()
    variants = load_variants(folder, 1)
    assert manifest.maps is not None
    assert manifest.maps.top == TOP
    assert min(boxes_of(variants)) > 0
    raw = variants.get("fp32").infer_tensor(np.zeros((1, 3, SIZE, SIZE), np.float32))
    assert raw.shape == manifest.output_shape
    variants.close()
    read_manifest(folder)  # what the engines added is no damage
    nvidia.cuda.require_clean()


@pytest.fixture(scope="module")
def elsewhere(compiler, photos, tmp_path_factory):
    """A folder for two kinds of GPUs, built here as it is: without a GPU and without a fake."""
    home = tmp_path_factory.mktemp("elsewhere")
    folder = home / "built"
    folder.mkdir()
    config = config_of(home, photos, device="gpu", target=("sm75,sm89",))
    return folder, build(config, folder, lambda progress: None)


@pytest.fixture
def built_elsewhere(rtx, elsewhere, tmp_path):
    """The same on a machine with one of those GPUs."""
    folder, report = elsewhere
    return shutil.copytree(folder, tmp_path / "built"), report


@pytest.mark.skipif(isinstance(find_gpu(), Gpu), reason="an NVIDIA GPU is here")
def test_without_a_driver_a_folder_for_gpus_elsewhere_is_refused_in_one_line(elsewhere):
    folder, _ = elsewhere
    with pytest.raises(DeviceUnavailable, match=r"^TensorRT for RTX needs an NVIDIA GPU: ") as no:
        load_variants(folder, 1)
    assert len(str(no.value).splitlines()) == 1


def test_a_build_for_gpus_elsewhere_is_timed_on_its_first_start(rtx, built_elsewhere):
    folder, report = built_elsewhere
    manifest = read_manifest(folder)
    assert report.options.target == ("sm75", "sm89")
    assert report.ms == {}
    counts = report.int8_convolutions
    assert counts.executed == counts.planned > 0  # on sm89
    executed = {layer.executed["int8"] for layer in report.layers if layer.planned == "int8"}
    assert executed == {"sm75 f16, sm89 i8"}
    assert report.agreement.with_fp32.keys() == {"fp16", "int8"}
    assert not manifest.timed
    for variant in manifest.variants.values():
        assert variant.plans.keys() == {"sm75", "sm89"}
    variants = load_variants(folder, 1)
    (timed,) = (folder / LOCAL).glob("*.json")
    ms = json.loads(timed.read_text())
    assert ms.keys() == manifest.variants.keys()
    accepted = ms.keys() - manifest.rejected.keys()
    assert variants.manifest.default == min(accepted, key=ms.__getitem__)
    assert min(boxes_of(variants)) > 0
    variants.close()
    slow = {name: 1.0 if name == "fp32" else 9.0 for name in ms}
    timed.write_text(json.dumps(slow))  # a second start measures nothing
    again = load_variants(folder, 1)
    assert again.manifest.default == "fp32"
    again.close()
    timed.write_text("damaged")
    load_variants(folder, 1).close()
    assert json.loads(timed.read_text()).keys() == ms.keys()
    rtx.cuda.require_clean()


@pytest.mark.parametrize(("targets", "has"), [(("sm89", "sm120"), True), (("sm86", "sm89"), False)])
def test_fp8_is_a_variant_where_every_gpu_has_it(compiler, targets, has):
    assert load_builder("tensorrt-rtx", 1, targets=targets).qdq_format.float8 is has


def test_a_folder_for_other_gpus_says_for_which(rtx, built_elsewhere, monkeypatch):
    folder, _ = built_elsewhere
    ampere = replace(RTX_4090, name="NVIDIA RTX A4000", compute_capability="8.6")
    monkeypatch.setattr(tensorrt_engine, "find_gpu", lambda: ampere)
    with pytest.raises(DeviceUnavailable, match="built for sm75 and sm89, but NVIDIA RTX A4000 is"):
        load_variants(folder, 1)


def test_a_folder_that_cannot_be_written_serves_all_the_same(rtx, built_elsewhere):
    folder, _ = built_elsewhere
    (folder / LOCAL).write_text("a file in place of the folder")
    variants = load_variants(folder, 1)
    assert min(boxes_of(variants)) > 0
    variants.close()
