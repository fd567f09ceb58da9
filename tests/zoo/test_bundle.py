"""The bundled files are the released ones, small, and free to redistribute."""

import hashlib
import math

import onnx
import pytest
from PIL import Image

from quantizer.model.coco_names import COCO_NAMES
from quantizer.model.float_model import read_float_model
from quantizer.model.layout import Layout, recognise
from service.vision.input_size import InputSize
from zoo import bundle
from zoo.errors import Distrusted

PICTURES = sorted([*bundle.SAMPLES.glob("*.jpg"), *bundle.CALIBRATION.glob("*.jpg")])


def test_the_detector_is_the_released_one():
    path = bundle.model()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert bundle.CHECKSUMS.read_text() == f"{digest}  {path.name}\n"
    assert digest in bundle.CARD.read_text()


def test_a_damaged_detector_is_not_used(tmp_path, monkeypatch):
    copy = tmp_path / "qyolo-nano.onnx"
    copy.write_bytes(bundle.MODEL.read_bytes()[:-1])
    monkeypatch.setattr(bundle, "MODEL", copy)
    with pytest.raises(Distrusted, match="reinstall"):
        bundle.model()


def test_the_detector_is_compact():
    assert bundle.MODEL.stat().st_size < 6_000_000
    weights = onnx.load(bundle.MODEL).graph.initializer
    assert 1_000_000 < sum(math.prod(tensor.dims) for tensor in weights) < 2_500_000


def test_the_layout_of_the_detector_is_recognised():
    layout = recognise(read_float_model(bundle.MODEL, InputSize.of(640))).layout
    assert layout == Layout("yolox", "yolox", COCO_NAMES)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_every_image_is_listed_with_its_licence(picture):
    listed = (picture.parent / "README.md").read_text()
    assert f"`{picture.name}`" in listed or "`collage-*.jpg`" in listed
    with Image.open(picture) as image:
        image.load()
        assert min(image.size) >= 300


def test_the_images_are_few_and_small():
    assert len(list(bundle.SAMPLES.glob("*.jpg"))) >= 3
    assert 24 <= len(list(bundle.CALIBRATION.glob("*.jpg"))) <= 64
    assert sum(picture.stat().st_size for picture in PICTURES) < 3_000_000
