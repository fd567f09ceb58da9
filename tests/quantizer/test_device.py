"""Builds for a device beside the processor: modes that are here, and a stand-in for a GPU."""

import json
from contextlib import closing
from dataclasses import replace
from types import MappingProxyType

import openvino as ov
import pytest

from quantizer.build import build
from quantizer.cache import build_key
from quantizer.compile.accelerator import Accelerator, choose_accelerator
from quantizer.compile.builder import Candidate
from quantizer.compile.candidates import candidates_for, candidates_on
from quantizer.compile.load import load_builder
from quantizer.config import BuildConfig
from quantizer.errors import BadOption
from quantizer.evaluation.detectors import describe
from quantizer.evaluation.device_trial import DeviceTrial
from quantizer.int8 import Scheme
from quantizer.model.layout import read_detector
from service.engines.intel import IntelDevice
from service.inference.variants import load_variants
from service.manifest import read_manifest
from tests.quantizer.graphs import graph_of, maps_of, quantized
from tests.quantizer.machines import LAPTOP
from tests.tiny_models import INPUT, SIZE, TINY, save_tiny
from tests.vendor.fake_openvino import GpuBuilder, core_with_gpu, faulty

WITH_GPU = replace(LAPTOP, intel=LAPTOP.intel | {"intel-gpu": IntelDevice(file="/dev/dri/render")})
TYPES = ("f32", "f16")


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A function that puts a GPU into this machine, which has this fault."""

    def install(faults=MappingProxyType({}), **told):
        fault = faulty(dict(faults))
        core = core_with_gpu(fault, **told)
        monkeypatch.setattr(ov, "Core", core)
        builder = lambda threads: GpuBuilder(threads, fault, told)  # noqa: E731
        monkeypatch.setattr("quantizer.compile.openvino_builder.OpenVinoBuilder", builder)
        for module in ("quantizer.job", "quantizer.cache"):
            monkeypatch.setattr(f"{module}.detect", lambda: WITH_GPU)
        return core

    return install


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"), "yolov5")


def config(model, photos, **options) -> BuildConfig:
    quick = {"adaptive_rounding": False, "equalisation": False, "min_sqnr": 0}
    return BuildConfig(model, photos, size=SIZE, threads=1, **quick, **options)


@pytest.fixture
def trial(model, photos, tmp_path):
    """A trial, after the processor's fp32 was built into its folder."""
    detector = read_detector(model, INPUT)
    builder = load_builder("openvino", 1)
    fp32 = builder.build(Candidate("fp32", detector.model), tmp_path)
    manifest = describe(model, detector, {"fp32": fp32.variant})
    images = sorted(photos.iterdir())[:6]
    return detector, builder, DeviceTrial(tmp_path, manifest, images, 1, None)


def test_candidates_have_each_float_type_of_the_device():
    here = candidates_for("float", "int8", "bf16")
    made = candidates_on(Accelerator("HETERO:GPU,CPU", TYPES), here)
    assert {each.name: (each.graph, each.float_type, each.served_as) for each in made} == {
        "fp32-hetero-gpu-cpu": ("float", "f32", "fp32-hetero-gpu-cpu"),
        "int8-hetero-gpu-cpu": ("int8", "f32", "int8-hetero-gpu-cpu"),
        "fp16-hetero-gpu-cpu": ("float", "f16", "fp16-hetero-gpu-cpu"),
        "int8-hetero-gpu-cpu-f16": ("int8", "f16", "int8-hetero-gpu-cpu"),
    }
    assert {each.device for each in made} == {"HETERO:GPU,CPU"}


def candidates(detector) -> list[Candidate]:
    """For the GPU: fp32, int8 in float32, int8 in float16, fp16."""
    int8 = quantized(graph_of("yolov5"), Scheme())
    return [
        Candidate("fp32", detector.model, device="GPU"),
        Candidate("int8", int8, device="GPU"),
        Candidate("int8", int8, "f16", device="GPU"),
        Candidate("fp16", detector.model, "f16", device="GPU"),
    ]


def assert_dropped(tried, folder, **reasons: str) -> None:
    """The candidates, by the beginning of the reason; fp16 alone is left."""
    assert tried.built.keys() == {"fp16-gpu"}
    assert tried.dropped.keys() == {name.replace("_", "-") for name in reasons}
    for name, words in reasons.items():
        assert tried.dropped[name.replace("_", "-")].startswith(words)
    assert sorted(path.name for path in folder.iterdir()) == ["fp16-gpu", "fp32"]


def test_a_candidate_that_fails_is_dropped_with_the_reason(trial, on_a_gpu, tmp_path):
    on_a_gpu({("f32", False): "compile", ("f32", True): "run", ("f16", True): "boxes"})
    detector, _, compare = trial
    tried = compare.run(load_builder("openvino", 1), candidates(detector), lambda _: None)
    assert_dropped(
        tried,
        tmp_path,
        fp32_gpu="GPU cannot compile the fp32 graph: no kernel for Softplus",
        int8_gpu="OpenVINO could not run the model: ",
        int8_gpu_f16="its boxes disagree with fp32's by",
    )
    assert tried.built["fp16-gpu"].variant.device == "GPU"
    assert "24.52.32224" in tried.built["fp16-gpu"].variant.blob_key


def test_a_candidate_that_crashes_its_process_is_dropped_and_the_next_one_tried(
    trial, on_a_gpu, tmp_path
):
    on_a_gpu({("f32", False): "crash", ("f32", True): "exit"})
    detector, _, compare = trial
    fp32, int8, _, fp16 = candidates(detector)
    tried = compare.run(load_builder("openvino", 1), [fp32, int8, fp16], lambda _: None)
    assert_dropped(
        tried,
        tmp_path,
        fp32_gpu="the process that tried it ended with SIGSEGV",
        int8_gpu="the process that tried it ended with exit code 3",
    )


def test_a_candidate_that_hangs_is_dropped_after_a_time(trial, on_a_gpu, tmp_path):
    on_a_gpu({("f32", False): "hang"})
    detector, _, compare = trial
    impatient = replace(compare, limit_s=1)
    hanging, *_ = candidates(detector)
    tried = impatient.run(load_builder("openvino", 1), [hanging], lambda _: None)
    assert tried.dropped == {"fp32-gpu": "it did not compile and run within 1 s"}
    assert [path.name for path in tmp_path.iterdir()] == ["fp32"]


def test_where_fp32_finds_nothing_a_device_cannot_be_checked(trial):
    detector, builder, compare = trial
    blind = replace(compare, images=())
    candidate = Candidate("fp32", detector.model, device="HETERO:CPU")
    tried = blind.run(builder, [candidate], lambda _: None)
    assert "cannot be checked" in tried.dropped["fp32-hetero-cpu"]


def test_without_a_driver_the_real_plugin_is_the_reason(trial):
    detector, builder, compare = trial
    wanted = [Candidate("fp16", detector.model, "f16", device=name) for name in ("GPU", "NPU")]
    tried = compare.run(builder, wanted, lambda _: None)
    for each in wanted:
        reason = tried.dropped[each.name]
        assert reason.startswith(f"{each.device} cannot compile the fp16 graph: ")
    assert not tried.built


def test_a_build_serves_what_is_right_on_the_gpu_and_the_processor_otherwise(
    model, photos, tmp_path, on_a_gpu
):
    """As on Xe3: int8 is wrong with float16 alone. Here float16 does not run either."""
    on_a_gpu({("f16", True): "boxes", ("f16", False): "run"})
    report = build(config(model, photos, device="intel-gpu"), tmp_path, lambda _: None)
    assert report.rejected_candidates.keys() == {"fp16-gpu", "int8-gpu-f16"}
    for name, reason in report.rejected_candidates.items():
        assert (
            f"{name} is dropped, the processor's variants are served: {reason}" in report.warnings
        )
    manifest = read_manifest(tmp_path)
    on_gpu = {name for name, each in manifest.variants.items() if each.device == "GPU"}
    assert on_gpu == {"fp32-gpu", "int8-gpu"} == {*report.ms} - {"fp32", "bf16", "fp16", "int8"}
    assert on_gpu < report.agreement.with_fp32.keys()
    assert manifest.variants["fp32"].device is None
    assert manifest.device_of("int8-gpu") == "gpu"
    assert manifest.device_of("int8") == "cpu"
    assert report.default == min(report.ms, key=report.ms.get)
    assert json.loads((tmp_path / "report.json").read_text())["options"]["accelerator"] == "GPU"
    with closing(load_variants(tmp_path, 1)) as served:
        assert served.names == tuple(manifest.variants)


def test_the_named_precision_is_served_on_its_faster_device(model, photos, tmp_path):
    options = {"runtime": "openvino", "default": "fp16", "openvino_device": "AUTO:CPU"}
    report = build(config(model, photos, **options), tmp_path, lambda _: None)
    assert report.rejected_candidates == {}
    assert report.default in ("fp16", "fp16-auto-cpu")
    assert {"fp32-auto-cpu", "fp16-auto-cpu", "int8-auto-cpu"} < report.ms.keys()
    assert read_manifest(tmp_path).variants["fp16-auto-cpu"].blob is None  # AUTO exports none


@pytest.mark.parametrize("name", TINY)
def test_the_graphs_for_a_device_are_static(name, tmp_path):
    """An NPU runs no others."""
    graph = graph_of(name)
    for variant, model in (("fp32", graph.model), ("int8", quantized(graph, Scheme()))):
        candidate = Candidate(variant, model, maps=maps_of(name), device="HETERO:CPU")
        built = load_builder("openvino", 1).build(candidate, tmp_path).variant
        for file in (built.model, built.raw):
            network = ov.Core().read_model(tmp_path / file)
            values = [each for node in network.get_ops() for each in node.outputs()]
            assert all(each.partial_shape.is_static for each in values)


def test_the_cache_knows_the_device_and_its_driver(model, photos, on_a_gpu):
    keys = {build_key(config(model, photos), LAPTOP)}
    for told in ({}, {"GPU_DRIVER_VERSION": "25.18"}):
        on_a_gpu(**told)
        keys.add(build_key(config(model, photos, device="intel-gpu"), WITH_GPU))
    keys.add(build_key(config(model, photos, openvino_device="HETERO:CPU"), LAPTOP))
    assert len(keys) == 4


def test_a_gpu_that_openvino_does_not_find_names_the_packages(model, photos):
    with pytest.raises(BadOption, match=r"OpenVINO finds only CPU.*apt install intel-opencl-icd"):
        choose_accelerator(config(model, photos, device="intel-gpu"), "openvino")


def test_only_openvino_has_other_devices(model, photos):
    with pytest.raises(BadOption, match="add --runtime openvino"):
        choose_accelerator(config(model, photos, openvino_device="GPU.1"), "onnxruntime")


@pytest.mark.parametrize(
    ("told", "types"), [(["FP16", "INT8"], ("f16",)), (["FP32", "BIN", "FP16"], TYPES)]
)
def test_the_float_types_are_those_of_the_device(told, types, model, photos, on_a_gpu):
    on_a_gpu(OPTIMIZATION_CAPABILITIES=told)
    chosen = choose_accelerator(config(model, photos, device="intel-gpu"), "openvino")
    assert chosen == Accelerator("GPU", types)
