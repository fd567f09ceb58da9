import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from quantizer.cache import build_key
from quantizer.config import AnnotatedDataset, BuildConfig
from quantizer.errors import BadOption, NoCalibrationImages, UnsupportedModel
from tests.quantizer.machines import LAPTOP, RTX_4090, machine
from tests.tiny_models import save_tiny, yolov5


@pytest.fixture
def config(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for index in range(3):
        (images / f"{index}.jpg").write_bytes(bytes([index]) * 10)
    (tmp_path / "names.txt").write_text("cat\ndog\nbird\n")
    return BuildConfig(save_tiny(tmp_path, "yolov5"), images, classes=tmp_path / "names.txt")


def append_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\n")


CHANGES: dict[str, Callable[[BuildConfig], object]] = {
    "the model's bytes": lambda config: append_to(config.model),
    "an image's bytes": lambda config: append_to(config.calibration / "1.jpg"),
    "one image more": lambda config: (config.calibration / "9.png").write_bytes(b"x"),
    "one image less": lambda config: (config.calibration / "2.jpg").unlink(),
    "the class names": lambda config: append_to(config.classes),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_key_follows_the_content_of(change, config):
    before = build_key(config)
    change(config)
    assert build_key(config) != before


OPTIONS = {
    "size": 320,
    "ranges": "minmax",
    "symmetric": True,
    "bias_correction": False,
    "head": "yolov5",
    "preprocess": "yolox",
    "classes": None,
    "keep_float": ("stem",),
    "min_sqnr": 15.0,
    "max_drop": 0.02,
    "default": "fp32",
    "runtime": "onnxruntime",
}


@pytest.mark.parametrize(("name", "value"), OPTIONS.items(), ids=OPTIONS)
def test_the_key_follows_the_option(name, value, config):
    assert build_key(replace(config, **{name: value})) != build_key(config)


def test_the_key_follows_external_data(tmp_path, config):
    path = tmp_path / "big.onnx"
    onnx.save(yolov5(), path, save_as_external_data=True, location="big.onnx.data")
    config = replace(config, model=path)
    before = build_key(config)
    data = bytearray((tmp_path / "big.onnx.data").read_bytes())
    data[5] ^= 1
    (tmp_path / "big.onnx.data").write_bytes(data)
    assert build_key(config) != before


def test_the_key_follows_the_annotated_images(config, tmp_path):
    annotations = tmp_path / "annotations.json"
    annotations.write_text("{}")
    config = replace(config, annotated=AnnotatedDataset(config.calibration, annotations))
    keys = [build_key(replace(config, annotated=None)), build_key(config)]
    annotations.write_text('{"images": []}')
    keys.append(build_key(config))
    assert len(set(keys)) == 3


def test_the_key_ignores_paths_times_and_other_files(config, tmp_path):
    before = build_key(config)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    images = config.calibration.rename(elsewhere / "pictures")
    model = config.model.rename(elsewhere / config.model.name)
    classes = config.classes.rename(elsewhere / "classes.txt")
    (images / "1.jpg").rename(images / "z.jpg")
    for path in (model, classes, *images.iterdir()):
        os.utime(path, (1, 1))
    (images / "notes.txt").write_text("not an image")
    assert build_key(replace(config, model=model, calibration=images, classes=classes)) == before


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


def test_a_missing_file_folder_or_device_has_no_key(config, tmp_path):
    with pytest.raises(UnsupportedModel, match=r"absent\.onnx"):
        build_key(replace(config, model=tmp_path / "absent.onnx"))
    with pytest.raises(NoCalibrationImages, match="absent"):
        build_key(replace(config, calibration=tmp_path / "absent"))
    with pytest.raises(BadOption, match=r"absent\.txt"):
        build_key(replace(config, classes=tmp_path / "absent.txt"))
    with pytest.raises(BadOption, match="device gpu"):
        build_key(replace(config, device="gpu"), LAPTOP)
