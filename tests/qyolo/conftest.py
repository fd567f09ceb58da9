"""One build of the tiny model, which tests of the cache and of servers copy.

ONNX Runtime compiles it fastest.
"""

import shutil
from pathlib import Path

import pytest

from tests.qyolo.commands import inline
from tests.tiny_models import save_tiny


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory, photos) -> tuple[object, ...]:
    """The arguments of `build` and `up` for the tiny model."""
    model = save_tiny(tmp_path_factory.mktemp("model"), "yolov5")
    return (model, "--calibration", photos, "--size", 64, "--runtime", "onnxruntime")


@pytest.fixture(scope="session")
def built_cache(tmp_path_factory, tiny_build) -> Path:
    cache = tmp_path_factory.mktemp("built")
    assert inline("build", *tiny_build, QYOLO_CACHE_DIR=cache).code == 0
    return cache


@pytest.fixture
def cache(built_cache, tmp_path) -> Path:
    """A cache that holds the build of `tiny_build`."""
    return Path(shutil.copytree(built_cache, tmp_path / "cache"))


@pytest.fixture
def image(photo) -> bytes:
    return photo.read_bytes()
