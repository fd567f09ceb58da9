import pytest

from zoo.catalogue import catalogue, entry
from zoo.errors import UnknownModel

WANTED = {
    "yolox_nano", "yolox_tiny", "yolox_s", "yolox_m", "yolox_l", "yolov5n", "yolov5s", "yolov5m",
    "yolov7-tiny", "yolov7", "yolov7x", "yolov8n", "yolov8s", "yolo11n", "yolo11s",
}  # fmt: skip


def test_the_catalogue_lists_the_official_detectors_once_each():
    names = [model.name for model in catalogue()]
    assert set(names) >= WANTED
    assert len(names) == len(set(names))


@pytest.mark.parametrize("model", catalogue(), ids=lambda model: model.name)
def test_every_address_is_of_a_release_and_of_onnx_or_has_an_export_command(model):
    address = str(model.address)
    assert address.startswith("https://")
    assert not {"main", "master", "latest"} & set(address.split("/"))
    assert address.endswith(".onnx") == (model.export is None)
    assert model.sha256 is None or model.export is None
    assert model.ap is None or 20 < model.ap < 60
    assert model.copyleft == (model.publisher in {"Ultralytics", "THU-MIG"})


def test_an_entry_is_found_by_its_name_and_a_wrong_name_brings_suggestions():
    assert entry("yolox_s").publisher == "Megvii"
    with pytest.raises(UnknownModel, match="did you mean yolox_s"):
        entry("yolox-s")
    with pytest.raises(UnknownModel, match="qyolo models"):
        entry("resnet50")
