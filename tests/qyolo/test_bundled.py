"""Commands without arguments: they use the bundled detector, images and photos."""

import json
from pathlib import Path

import pytest
from PIL import Image

from service.manifest import read_manifest
from tests.qyolo.commands import Ran, inline, running
from zoo import bundle

PHOTOS = sorted(bundle.SAMPLES.glob("*.jpg"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def demo(cache, tmp_path_factory) -> tuple[Ran, Path]:
    folder = tmp_path_factory.mktemp("demo")
    return inline("detect", "--demo", cwd=folder, QYOLO_CACHE_DIR=cache), folder


def test_the_demo_finds_the_person_and_the_sign_and_saves_the_photos_with_boxes(demo):
    ran, folder = demo
    assert ran.code == 0, ran.err
    seen = {
        Path(answer["file"]).name: {box["class_name"] for box in answer["detections"]}
        for answer in map(json.loads, ran.out.splitlines())
    }
    assert seen.keys() == {photo.name for photo in PHOTOS}
    assert "person" in seen["astronaut.jpg"]
    assert "stop sign" in seen["street.jpg"]
    assert "pictures with boxes are in qyolo-demo" in ran.err
    for photo in PHOTOS:
        with Image.open(photo) as before, Image.open(folder / "qyolo-demo" / photo.name) as after:
            assert after.size == before.size


def test_up_without_arguments_serves_what_the_demo_built(demo, cache):
    (entry,) = (path for path in cache.iterdir() if path.is_dir())
    built = entry.stat().st_ino
    with running("up", QYOLO_CACHE_DIR=cache) as server:
        server.wait_until_ready()
        answer = server.detect((bundle.SAMPLES / "astronaut.jpg").read_bytes())
        assert answer["model"] == "qyolo-nano"
        assert answer["variant"] == read_manifest(entry).default
        assert "person" in {box["class_name"] for box in answer["detections"]}
        assert server.stop() == 0
    assert entry.stat().st_ino == built
    assert read_manifest(entry).name == "qyolo-nano"
    assert "calibrating on the bundled images" in server.err
