"""OpenVINO's engine on devices beside the processor: modes that are here, and a stand-in GPU."""

import inspect
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
import pytest

from service.engines import load_engine
from service.engines.openvino_engine import Target, blob_key, compile_options
from service.errors import EngineFailed
from service.inference.variants import load_variants
from service.manifest import Variant, write_manifest
from tests.fakes import manifest_of
from tests.service.tiny import SIZE, write_openvino
from tests.vendor.fake_openvino import TOLD, core_with_gpu

MODES = ("HETERO:CPU", "AUTO:CPU", "CPU")
IMAGES = np.random.default_rng(1).integers(0, 256, (6, 1, SIZE, SIZE, 3), np.uint8)


def on(variant: Variant, device: str, **changes: object) -> Variant:
    return variant.model_copy(update={"device": device, **changes})


def outputs(folder, variant: Variant, streams: int = 1) -> list[np.ndarray]:
    engine = load_engine(folder, variant, threads=2, streams=streams)
    with ThreadPoolExecutor(streams) as pool:
        found = [each for (each,) in pool.map(engine.infer, IMAGES)]
    engine.close()
    return found


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("device", MODES)
def test_a_device_computes_what_the_processor_does(device, streams, tmp_path):
    variant = write_openvino(tmp_path, "fp32")
    expected = outputs(tmp_path, variant)
    found = outputs(tmp_path, on(variant, device), streams)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_image_may_be_read_only(tmp_path):
    engine = load_engine(tmp_path, write_openvino(tmp_path, "fp32"), threads=1)
    image = IMAGES[0].copy()
    (expected,) = engine.infer(image)
    image.flags.writeable = False
    (found,) = engine.infer(image)
    np.testing.assert_array_equal(found, expected)
    engine.close()


def test_a_blob_of_another_device_is_not_loaded(tmp_path, caplog):
    variant = write_openvino(tmp_path, "fp32")
    (tmp_path / variant.blob).write_bytes(b"compiled for something else")
    with caplog.at_level(logging.WARNING):
        outputs(tmp_path, on(variant, "HETERO:CPU"))  # its key is the processor's
        assert caplog.text == ""
        outputs(tmp_path, on(variant, "HETERO:CPU", blob_key=blob_key("HETERO:CPU")))
        assert "cannot be loaded" in caplog.text


def test_the_key_of_a_blob_tells_the_device_and_its_driver(monkeypatch):
    keys = {blob_key(device) for device in ("CPU", "GPU", "HETERO:CPU", "HETERO:GPU,CPU")}
    monkeypatch.setattr(ov, "Core", core_with_gpu())
    keys |= {blob_key(device) for device in ("GPU", "HETERO:GPU,CPU")}
    for told in ("FULL_DEVICE_NAME", "DEVICE_ARCHITECTURE", "GPU_DRIVER_VERSION"):
        assert TOLD[told] in blob_key("GPU")
    monkeypatch.setattr(ov, "Core", core_with_gpu(GPU_DRIVER_VERSION="25.18"))
    keys |= {blob_key(device) for device in ("GPU", "HETERO:GPU,CPU")}
    assert len(keys) == 8


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_only_options_that_the_real_plugin_has_are_passed(device):
    known = ov.Core().get_property(device, "SUPPORTED_PROPERTIES")
    for streams in (1, 4):
        options = compile_options(2, "f16", streams, Target(device))
        assert {known[name] for name in options} == {"RW"}
        assert "PERFORMANCE_HINT" in options
        assert not {"INFERENCE_NUM_THREADS", "NUM_STREAMS"} & options.keys()
    assert "INFERENCE_PRECISION_HINT" in compile_options(2, target=Target("GPU"))
    assert "INFERENCE_NUM_THREADS" in compile_options(2)


def test_what_a_gpu_compiles_is_kept_beside_the_folders_files(tmp_path, monkeypatch):
    core = core_with_gpu()
    monkeypatch.setattr(ov, "Core", core)
    variant = on(write_openvino(tmp_path, "fp32"), "GPU")
    outputs(tmp_path, variant)
    (options,) = core.compiled
    assert options["CACHE_DIR"] == str(tmp_path / "local/openvino/fp32")
    assert any((tmp_path / "local/openvino/fp32").iterdir())


@pytest.mark.parametrize("device", ["HETERO:CPU", "CPU"])
def test_a_mode_and_the_processor_keep_nothing(device, tmp_path):
    outputs(tmp_path, on(write_openvino(tmp_path, "fp32"), device))
    assert not (tmp_path / "local").exists()


@pytest.mark.parametrize("device", ["GPU", "NPU", "NONE"])
def test_a_device_that_is_not_here_is_an_error_with_a_command(device, tmp_path):
    variant = on(write_openvino(tmp_path, "fp32"), device)
    with pytest.raises(EngineFailed, match=f"on {device} .*qyolo doctor"):
        load_engine(tmp_path, variant)


def folder_with(folder, *rejected: str, **devices: str | None) -> None:
    variants = {
        name: on(write_openvino(folder, name), device, precision=name.partition("_")[0])
        for name, device in devices.items()
    }
    manifest = manifest_of(
        "fp32",
        default=list(devices)[-1],
        variants=variants,
        rejected=dict.fromkeys(rejected, "far"),
    )
    write_manifest(folder, manifest)


@pytest.mark.parametrize(("rejected", "default"), [((), "int8"), (("int8",), "fp32")])
def test_a_folder_is_served_without_the_device_that_it_was_built_for(
    rejected, default, tmp_path, caplog
):
    folder_with(tmp_path, *rejected, fp32=None, int8=None, fp16_none="NONE", int8_none="NONE")
    served = load_variants(tmp_path, 1)
    assert served.names == ("fp32", "int8")
    assert served.manifest.default == served.resolve(None) == default
    assert served.eligible[0] == default
    assert "int8_none is not served" in caplog.text
    served.close()


def test_a_variant_of_the_processor_must_load(tmp_path):
    folder_with(tmp_path, fp32=None)
    (tmp_path / "fp32/model.xml").write_text("no network")
    (tmp_path / "fp32/model.blob").write_bytes(b"")
    write_manifest(tmp_path, load_manifest(tmp_path))
    with pytest.raises(EngineFailed):
        load_variants(tmp_path, 1)


def load_manifest(folder):
    from service.manifest import MANIFEST, Manifest

    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


@pytest.mark.parametrize("name", ["compile_model", "import_model"])
def test_the_stand_in_has_the_interface_of_openvino(name):
    real, stand_in = (
        list(inspect.signature(getattr(core, name)).parameters)
        for core in (ov.Core, core_with_gpu())
    )
    assert stand_in == real
