"""The interface of an engine, on each runtime for CPUs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.engines import load_engine
from service.errors import EngineFailed
from service.vision.preprocess import PREPROCESS, tensor_of
from tests.service.tiny import CELLS, COLUMNS, SIZE, write_onnxruntime, write_openvino

WRITERS = {"onnxruntime": write_onnxruntime, "openvino": write_openvino}


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 3, SIZE, SIZE), np.float32)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    return tmp_path, WRITERS[request.param](tmp_path, "fp32")


@pytest.fixture
def engine(written):
    loaded = load_engine(*written, threads=1)
    yield loaded
    loaded.close()


def test_the_output_arrays_belong_to_the_caller(engine):
    for infer, image in ((engine.infer, pixels), (lambda x: [engine.infer_tensor(x)], noise)):
        (first,) = infer(image(0))
        assert first.shape == (1, CELLS, COLUMNS)
        assert first.dtype == np.float32
        kept = first.copy()
        infer(image(1))
        np.testing.assert_array_equal(first, kept)
        first[:] = 0
        np.testing.assert_array_equal(infer(image(0))[0], kept)


@pytest.mark.parametrize("how", PREPROCESS.values(), ids=PREPROCESS)
@pytest.mark.parametrize("blob", [True, False])
def test_bytes_are_brought_into_the_order_and_the_range_of_the_model(written, how, blob):
    folder, variant = written
    if not blob or how is not PREPROCESS["yolo"]:  # which the blobs of these tests are for
        variant = variant.model_copy(update={"blob": None, "blob_key": None})
    engine = load_engine(folder, variant, threads=1, preprocess=how)
    for seed in range(3):
        expected = engine.infer_tensor(tensor_of(pixels(seed), how))
        (found,) = engine.infer(pixels(seed))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    engine.close()


def test_bytes_and_tensors_may_be_inferred_at_once(written):
    engine = load_engine(*written, threads=4, streams=2)
    images = [pixels(seed) for seed in range(16)]
    tensors = [tensor_of(image, PREPROCESS["yolo"]) for image in images]
    with ThreadPoolExecutor(2) as pool:
        by_bytes = pool.map(engine.infer, images)
        by_tensors = pool.map(engine.infer_tensor, tensors)
        for (one,), other in zip(by_bytes, by_tensors, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    engine.close()


def test_the_input_is_unchanged(engine):
    tensor, image = noise(0), pixels(0)
    engine.infer_tensor(tensor)
    engine.infer(image)
    np.testing.assert_array_equal(tensor, noise(0))
    np.testing.assert_array_equal(image, pixels(0))


def test_a_wrong_shape_fails_and_the_engine_still_works(engine):
    with pytest.raises(EngineFailed):
        engine.infer_tensor(np.zeros((1, 3, SIZE, SIZE // 2), np.float32))
    with pytest.raises(EngineFailed):
        engine.infer(np.zeros((1, SIZE, SIZE // 2, 3), np.uint8))
    assert engine.infer_tensor(noise(0)).shape == (1, CELLS, COLUMNS)
    assert engine.infer(pixels(0))[0].shape == (1, CELLS, COLUMNS)


def test_streams_infer_at_once_and_do_not_mix_images(written):
    alone = load_engine(*written, threads=1)
    expected = [alone.infer_tensor(noise(seed)) for seed in range(8)]
    alone.close()
    engine = load_engine(*written, threads=4, streams=4)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: engine.infer_tensor(noise(seed % 8)), range(64)))
    engine.close()
    for seed, raw in enumerate(found):
        np.testing.assert_allclose(raw, expected[seed % 8], rtol=1e-4, atol=1e-5)


def test_closing_twice_is_safe_and_a_closed_engine_fails(engine):
    engine.close()
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        engine.infer(pixels(0))
    with pytest.raises(EngineFailed, match="closed"):
        engine.infer_tensor(noise(0))


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"nonsense")], ids=["missing", "corrupt"]
)
def test_a_missing_or_corrupt_model_fails(written, damage):
    folder, variant = written
    damage(folder / variant.model)
    with pytest.raises(EngineFailed):
        load_engine(folder, variant.model_copy(update={"blob": None, "blob_key": None}), 1)


def test_runtimes_agree(tmp_path):
    raws = []
    for name, write in WRITERS.items():
        loaded = load_engine(tmp_path, write(tmp_path, name), 1)
        raws.append(loaded.infer_tensor(noise(3)))
        loaded.close()
    np.testing.assert_allclose(raws[0], raws[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "logged"), [({"blob_key": "openvino-0-other"}, ""), ({}, "blob")], ids=["other", "bad"]
)
def test_the_model_is_compiled_if_its_blob_is_of_another_machine_or_bad(
    tmp_path, caplog, key, logged
):
    variant = write_openvino(tmp_path, "fp32").model_copy(update=key)
    (tmp_path / str(variant.blob)).write_bytes(b"nonsense, which could crash the import")
    loaded = load_engine(tmp_path, variant, 1)
    assert loaded.infer_tensor(noise(0)).shape == (1, CELLS, COLUMNS)
    assert logged in caplog.text
    assert bool(caplog.text) == bool(logged)
    loaded.close()
