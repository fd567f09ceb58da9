from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.errors import EngineFailed, VariantNotFound
from service.inference.variants import load_variants
from service.manifest import CHECKSUMS, write_manifest
from service.vision.image import Photo
from service.vision.postprocess import Query
from tests.service.live import post, serving_folder
from tests.service.pictures import gradient, jpeg
from tests.service.tiny import write_model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    write_model_folder(path)
    return path


@pytest.fixture
def loaded(folder):
    variants = load_variants(folder, 1)
    yield variants
    variants.close()


def test_every_variant_of_a_folder_is_loaded(loaded):
    assert loaded.names == ("fp32", "other")  # the manifest's order
    assert loaded.report == b'{"made": "here"}'
    photo = Photo.from_pixels(np.asarray(gradient(200, 100)))
    found = [loaded.get(name).detect(photo, Query()) for name in loaded.names]
    for detections in found:
        assert detections.class_ids.tolist() == [0]
        np.testing.assert_allclose(detections.xyxy, [[75, 37.5, 125, 62.5]], atol=1.5)
    np.testing.assert_allclose(found[0].xyxy, found[1].xyxy, atol=0.01)


def test_for_throughput_each_thread_has_a_stream(folder):
    for throughput, streams in ((False, 1), (True, 3)):
        variants = load_variants(folder, 3, throughput)
        assert variants.streams == streams
        variants.close()


@pytest.mark.parametrize("throughput", [False, True])
def test_a_served_folder_answers_many_clients_over_a_socket(folder, throughput):
    def detect(variant: str) -> list:
        path = f"/v1/models/{variant}/detect"
        return post(live.client, jpeg(), path).json()["detections"]

    served = serving_folder(folder, throughput=throughput, threads=2)
    with served as live, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(detect, ("fp32", "other") * 10))
    for (row,) in found:
        assert row["class_name"] == "person"
        np.testing.assert_allclose(row["box"], [75, 37.5, 125, 62.5], atol=1.5)


@pytest.mark.parametrize(
    ("requested", "name"),
    [(None, "other"), ("auto", "other"), ("other", "other"), ("fp32", "fp32")],
)
def test_no_name_and_auto_are_the_default_and_a_name_is_itself(loaded, requested, name):
    assert loaded.resolve(requested) == name


@pytest.mark.parametrize("name", ["", "FP32", "int4"])
def test_an_unknown_name_is_refused(loaded, name):
    for refused in (loaded.resolve, loaded.get):
        with pytest.raises(VariantNotFound, match="fp32, other"):
            refused(name)


def test_close_closes_every_engine_and_may_be_repeated(folder):
    variants = load_variants(folder, 1)
    variants.close()
    variants.close()
    with pytest.raises(EngineFailed):
        variants.get("fp32").detect(Photo.from_pixels(np.zeros((8, 8, 3), np.uint8)), Query())


def test_an_engine_that_cannot_be_loaded_fails_the_folder(tmp_path):
    manifest = write_model_folder(tmp_path)
    (tmp_path / "fp32" / "model.onnx").write_bytes(b"nonsense")
    (tmp_path / CHECKSUMS).unlink()
    write_manifest(tmp_path, manifest)
    with pytest.raises(EngineFailed):
        load_variants(tmp_path, 1)
