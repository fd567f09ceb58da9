"""The collection keeps a bounded, uniform sample of the served images."""

import asyncio
import io
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from service.experiments.collection import Collection
from service.inference.backend import ImageRequest
from service.inference.pipeline import Pipeline
from service.settings import Settings
from service.vision.postprocess import Query
from tests.fakes import admission
from tests.service.live import serving, two_variants
from tests.service.pictures import gradient, jpeg, png


def picture(shade: int = 90) -> np.ndarray:
    return np.full((40, 60, 3), shade, np.uint8)


def offer(collection: Collection, pixels: np.ndarray) -> int | None:
    index = collection.reserve()
    if index is not None:
        collection.keep(index, pixels)
    return index


def loaded(folder) -> list[Image.Image]:
    images = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            image.load()
        images.append(image)
    return images


def shades(folder) -> list[int]:
    return [round(float(np.asarray(image).mean())) for image in loaded(folder)]


def test_the_first_images_are_all_kept_and_never_more_than_the_limit(tmp_path):
    collection = Collection(tmp_path / "kept", 3)
    for shade in (10, 20, 30):
        offer(collection, picture(shade))
    assert shades(tmp_path / "kept") == [10, 20, 30]
    for _ in range(200):
        offer(collection, picture())
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_every_image_is_as_likely_to_be_kept_as_any_other(tmp_path):
    chance, kept = random.Random(5), Counter()
    for _ in range(1000):
        collection, images = Collection(tmp_path, 2, chance), {}
        for image in range(6):
            if (index := collection.reserve()) is not None:
                images[index] = image
        kept.update(images.values())
    assert all(count == pytest.approx(1000 / 3, rel=0.15) for count in kept.values())
    assert set(kept) == set(range(6))


def test_after_a_restart_the_images_that_are_there_count(tmp_path):
    for shade in (10, 20):
        offer(Collection(tmp_path, 2), picture(shade))
    assert shades(tmp_path) == [10, 20]


def test_large_images_are_reduced(tmp_path):
    offer(Collection(tmp_path, 1), np.zeros((1000, 2560, 3), np.uint8))
    assert [image.size for image in loaded(tmp_path)] == [(1280, 500)]


def test_a_failing_disk_ends_the_collection_with_one_log_line(tmp_path, caplog):
    collection = Collection(tmp_path / "kept", 5)
    (tmp_path / "kept").rmdir()
    assert offer(collection, picture()) == 0
    assert offer(collection, picture()) is None
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        f"no more images are kept: [Errno 2] No such file or directory: "
        f"'{tmp_path / 'kept' / 'served-00000.part'}'"
    ]


def test_an_error_that_is_not_the_disk_s_is_logged_and_the_collection_goes_on(tmp_path, caplog):
    class Failing(Collection):
        def keep(self, index, pixels):
            if index == 0:
                raise ValueError("no such encoder")
            super().keep(index, pixels)

    variants, *_ = two_variants()
    pipeline = Pipeline(variants, admission(), 1_000_000, collection=Failing(tmp_path, 5))
    for _ in range(2):
        asyncio.run(pipeline.detect(ImageRequest(jpeg(), Query()), "fp32"))
    pipeline.close()
    assert "ValueError: no such encoder" in caplog.text
    assert len(loaded(tmp_path)) == 1


def served(tmp_path, *requests, **settings) -> list[Image.Image]:
    """What the folder holds after a server answered POSTs of (path, body) and stopped."""
    with serving(**settings) as live:
        for path, body in requests:
            headers = {"Content-Type": "image/jpeg"}
            assert live.client.post(path, content=body, headers=headers).status_code < 500
        live.exit()
    return loaded(tmp_path)


def test_served_images_are_kept_without_their_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    buffer = io.BytesIO()
    gradient(200, 100).save(buffer, "JPEG", exif=exif)
    kept = served(tmp_path, ("/v1/detect", buffer.getvalue()), collect=tmp_path)
    assert [image.size for image in kept] == [(200, 100)]
    assert not kept[0].getexif()


def test_collect_false_is_respected(tmp_path):
    refused = ("/v1/detect?collect=false", png())
    path = ("/v1/models/fp32/detect?collect=false", png())
    assert served(tmp_path, refused, path, collect=tmp_path) == []


def test_images_that_cannot_be_decoded_leave_no_gap(tmp_path):
    bad, good = ("/v1/detect", b"\xff\xd8 no"), ("/v1/detect", jpeg())
    assert len(served(tmp_path, bad, good, bad, good, collect=tmp_path, collect_limit=2)) == 2


def test_by_default_nothing_is_kept(tmp_path):
    assert Settings().collect is None
    assert served(tmp_path, ("/v1/detect", jpeg())) == []
