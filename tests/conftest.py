"""Fixtures that are slow to make and safe to share; hypothesis with the same examples in every run.

Hypothesis has no deadline, because a shared machine is slow at times.
"""

import json
from contextlib import closing

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from quantizer.build import build
from quantizer.config import BuildConfig
from quantizer.evaluation.accuracy import AP_QUERY
from service.inference.detector import Detector
from service.manifest import read_manifest
from service.vision.image import MAX_PIXELS, decode_image
from tests.service.live import serving_folder
from tests.tiny_models import CLASSES, save_tiny

pytest_plugins = ["tests.vendor.fixtures"]

ANNOTATED_BOXES = 20
LONGEST = (
    "tests/test_end_to_end.py",
    "tests/test_tensorrt_accuracy.py",
    "tests/qyolo/cluster/test_on_ray.py",
    "tests/test_bundled_detector.py",
)

settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


def pytest_collection_modifyitems(items):
    """The longest files first, so that at the end no worker waits for another."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.location[0], len(LONGEST)))


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Twenty small pictures: bright rectangles on a smooth ground."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(7)
    x, y = np.meshgrid(np.linspace(0, 1, 80), np.linspace(0, 1, 60))
    for index in range(20):
        tint = random.uniform(0, 200, 3)
        pixels = (x * y)[..., None] * tint + 25 * random.random((60, 80, 1))
        left, top = random.integers(0, 40, 2)
        pixels[top : top + 20, left : left + 30] = random.uniform(0, 255, 3)
        suffix = "png" if index % 2 else "jpg"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"photo{index:02}.{suffix}")
    return folder


@pytest.fixture(scope="session")
def photo(photos):
    return photos / "photo00.jpg"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, photos):
    """A model folder built of the tiny YOLOv5."""
    home = tmp_path_factory.mktemp("tiny")
    folder = home / "built"
    folder.mkdir()
    config = BuildConfig(save_tiny(home, "yolov5"), photos, size=64, threads=1, default="int8")
    build(config, folder, lambda _: None)
    return folder


@pytest.fixture(scope="session")
def tiny_server(tiny_folder):
    """A server of that folder, with its real engines."""
    with serving_folder(tiny_folder) as live:
        yield live


@pytest.fixture(scope="session")
def annotations(tiny_folder, photos, tmp_path_factory):
    """A COCO file: four photos with the best boxes that fp32 of the tiny model finds in them.

    As many tools do, it leaves out the fields `area` and `iscrowd` of a box.
    """
    manifest = read_manifest(tiny_folder)
    records, boxes, scores = [], [], []
    with closing(Detector.load(tiny_folder, manifest, "fp32", 1)) as detector:
        for image_id, path in enumerate(sorted(photos.iterdir())[:4], start=1):
            photo = decode_image(path.read_bytes(), MAX_PIXELS)
            found = detector.detect(photo, AP_QUERY)
            size = {"height": photo.height, "width": photo.width}
            records.append({"id": image_id, "file_name": path.name, **size})
            scores += found.scores.tolist()
            boxes += [
                {
                    "image_id": image_id,
                    "category_id": 10 * (class_id + 1),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
                for (x1, y1, x2, y2), class_id in zip(
                    found.xyxy.tolist(), found.class_ids.tolist(), strict=True
                )
            ]
    best = sorted(range(len(boxes)), key=scores.__getitem__, reverse=True)[:ANNOTATED_BOXES]
    boxes = [boxes[index] | {"id": number} for number, index in enumerate(best, start=1)]
    categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(CLASSES)]
    path = tmp_path_factory.mktemp("annotations") / "annotations.json"
    path.write_text(json.dumps({"images": records, "annotations": boxes, "categories": categories}))
    return path
