import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import helper

from quantizer.cache import build_key
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.errors import BadOption, NoCalibrationImages, UnsupportedModel
from tests.quantizer.machines import LAPTOP, NO_DRIVER, RTX_4090, machine
from tests.tiny_models import save_tiny


@pytest.fixture
def config(tmp_path):
    for folder in (tmp_path / "images", tmp_path / "annotated"):
        folder.mkdir()
        for index in range(3):
            (folder / f"{index}.jpg").write_bytes(bytes([index]) * 10)
    for name in ("names.txt", "annotations.json"):
        (tmp_path / name).write_text("cat\ndog\nbird\n")
    return BuildConfig(
        save_tiny(tmp_path, "yolov5"),
        tmp_path / "images",
        classes=tmp_path / "names.txt",
        annotated=AnnotatedDataset(tmp_path / "annotated", tmp_path / "annotations.json"),
    )


def append_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


CHANGES: dict[str, Callable[[BuildConfig], object]] = {
    "the model's bytes": lambda config: append_to(config.model),
    "an image's bytes": lambda config: append_to(config.calibration / "1.jpg"),
    "one image more": lambda config: (config.calibration / "9.png").write_bytes(b"x"),
    "one image less": lambda config: (config.calibration / "2.jpg").unlink(),
    "the class names": lambda config: append_to(config.classes),
    "the annotations": lambda config: append_to(config.annotated.annotations),
    "an annotated image": lambda config: append_to(config.annotated.images / "1.jpg"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_key_follows_the_content_of(change, config):
    before = build_key(config)
    change(config)
    assert build_key(config) != before


@pytest.mark.parametrize(
    "location",
    [
        "yolov5.onnx.data",
        "yolov5.onnx_data",
        "weights.bin",
        "model.data",
        "w",
        "parts/" + "w" * 200,
    ],
)
def test_the_key_follows_the_external_data_whatever_its_file_is_called(location, config):
    data = config.model.parent / location
    data.parent.mkdir(exist_ok=True)
    model = onnx.load(config.model)
    onnx.save(model, config.model, save_as_external_data=True, location=location, size_threshold=0)
    before = build_key(config)
    with data.open("r+b") as file:  # one bit of one weight
        last = data.stat().st_size - 1
        file.seek(last)
        (byte,) = file.read(1)
        file.seek(last)
        file.write(bytes([byte ^ 1]))
    assert build_key(config) != before


def test_the_key_follows_external_data_in_subgraphs_and_in_several_files(config):
    """A tensor in the branch of an If, and one in a second file."""
    inner, outer = (onnx.TensorProto(name=name, data_type=1, dims=[1]) for name in ("in", "out"))
    for tensor in (inner, outer):
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{tensor.name}.bin")
        config.model.with_name(f"{tensor.name}.bin").write_bytes(b"1234")
    branch = helper.make_graph([], "branch", [], [], [inner])
    model = onnx.load(config.model)
    model.graph.initializer.append(outer)
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch))
    onnx.save(model, config.model)
    before = build_key(config)
    for name in ("in", "out"):
        append_to(config.model.with_name(f"{name}.bin"))
        after = build_key(config)
        assert after != before
        before = after


OPTIONS = {
    "size": 320,
    "ranges": "minmax",
    "symmetric": True,
    "bias_correction": False,
    "adaptive_rounding": False,
    "equalisation": False,
    "range_refinement": False,
    "head": "yolov5",
    "preprocess": "yolox",
    "classes": None,
    "annotated": None,
    "keep_float": ("stem",),
    "min_sqnr": 15.0,
    "max_drop": 0.02,
    "default": "fp32",
    "runtime": "onnxruntime",
}


@pytest.mark.parametrize(("name", "value"), OPTIONS.items(), ids=OPTIONS)
def test_the_key_follows_the_option(name, value, config):
    assert build_key(replace(config, **{name: value})) != build_key(config)


def test_the_key_ignores_paths_times_and_other_files(config, tmp_path):
    before = build_key(config)
    images = config.calibration.rename(tmp_path / "pictures")
    (images / "1.jpg").rename(images / "z.jpg")
    (images / "notes.txt").write_text("not an image")
    home = tmp_path.rename(tmp_path.with_name("elsewhere"))
    for path in home.rglob("*"):
        os.utime(path, (1, 1))
    moved = BuildConfig(
        home / "yolov5.onnx",
        home / "pictures",
        classes=(home / "names.txt").rename(home / "classes.txt"),
        annotated=AnnotatedDataset(home / "annotated", home / "annotations.json"),
    )
    assert build_key(moved) == before


def test_the_key_ignores_threads_and_the_option_that_chose_the_runtime(config):
    before = build_key(config, LAPTOP)
    assert build_key(replace(config, threads=3), LAPTOP) == before
    assert build_key(replace(config, runtime="openvino"), LAPTOP) == before
    assert build_key(replace(config, device="cpu"), LAPTOP) == before


def test_the_key_follows_the_runtime_and_the_gpu(config):
    other = replace(RTX_4090, name="NVIDIA H100 80GB HBM3", compute_capability="9.0")
    machines = [
        LAPTOP,
        machine(RTX_4090, tensorrt="10.16.1.11"),
        machine(RTX_4090, tensorrt="11.4.0.106"),
        machine(RTX_4090, onnxruntime_cuda="1.31.1"),
        machine(other, tensorrt="10.16.1.11"),
    ]
    assert len({build_key(config, hardware) for hardware in machines}) == len(machines)


def test_the_key_of_a_build_for_a_gpu_elsewhere_ignores_the_gpu_here(config):
    elsewhere = replace(config, target=("sm89",))
    bare, server = (machine(gpu, tensorrt_rtx="1.7.1") for gpu in (NO_DRIVER, RTX_4090))
    assert build_key(elsewhere, bare) == build_key(elsewhere, server)
    assert build_key(elsewhere, bare) != build_key(replace(config, target=("sm75",)), bare)


def test_the_key_ignores_an_unused_gpu_and_the_index_and_driver_of_a_used_one(config):
    moved = replace(RTX_4090, index=3, driver="590.1")
    server, other = (machine(gpu, tensorrt="10.16.1.11") for gpu in (RTX_4090, moved))
    assert build_key(config, server) == build_key(config, other)
    config = replace(config, device="cpu")
    assert build_key(config, LAPTOP) == build_key(config, server)


@pytest.mark.parametrize("name", ["yolo[v5].onnx", "y*.onnx", "über modell.onnx"])
def test_odd_file_names_have_a_key(name, config):
    model = config.model.rename(config.model.with_name(name))
    assert len(build_key(replace(config, model=model))) == 24


def test_a_file_that_is_no_model_has_a_key(config):
    for content in (b"", b"no model"):
        config.model.write_bytes(content)
        assert len(build_key(config)) == 24


def test_a_missing_file_folder_or_device_has_no_key(config, tmp_path):
    for field, value, error, words in (
        ("model", tmp_path / "absent.onnx", UnsupportedModel, r"absent\.onnx"),
        ("calibration", tmp_path / "absent", NoCalibrationImages, "absent"),
        ("classes", tmp_path / "absent.txt", BadOption, r"absent\.txt"),
        ("device", "gpu", BadOption, "device gpu"),
    ):
        with pytest.raises(error, match=words):
            build_key(replace(config, **{field: value}), LAPTOP)
