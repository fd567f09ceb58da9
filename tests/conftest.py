"""The same examples in every run, and no deadline: a shared machine is slow now and then.

The fixtures are what is slow to make and safe to share.
"""

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from quantizer.build import build
from quantizer.recipe import Recipe
from tests.tiny_models import save_tiny

settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


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
def tiny_folder(tmp_path_factory, photos):
    """A model folder built of the tiny YOLOv5."""
    home = tmp_path_factory.mktemp("tiny")
    folder = home / "built"
    folder.mkdir()
    recipe = Recipe(save_tiny(home, "yolov5"), photos, size=64, threads=1)
    build(recipe, folder, lambda _: None)
    return folder
