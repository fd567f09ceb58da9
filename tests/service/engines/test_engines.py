"""The interface of an engine, on each runtime for CPUs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.engines import load_engine
from service.errors import EngineFailed
from tests.service.tiny import CELLS, COLUMNS, SIZE, write_onnxruntime, write_openvino

WRITERS = {"onnxruntime": write_onnxruntime, "openvino": write_openvino}


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 3, SIZE, SIZE), np.float32)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 3, SIZE, SIZE), np.uint8)


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    return tmp_path, WRITERS[request.param](tmp_path, "fp32")


@pytest.fixture
def engine(written):
    loaded = load_engine(*written, threads=1)
    yield loaded
    loaded.close()


def test_the_output_array_belongs_to_the_caller(engine):
    first = engine.infer(noise(0))
    assert first.shape == (1, CELLS, COLUMNS)
    assert first.dtype == np.float32
    kept = first.copy()
    engine.infer(noise(1))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(engine.infer(noise(0)), kept)


@pytest.mark.parametrize("divisor", [1.0, 255.0])
@pytest.mark.parametrize("blob", [True, False])
def test_u8_input_is_divided(written, divisor, blob):
    folder, variant = written
    if not blob or divisor == 1:  # the blobs of these tests are for 255
        variant = variant.model_copy(update={"blob": None, "blob_key": None})
    engine = load_engine(folder, variant, threads=1, divisor=divisor)
    for seed in range(3):
        image = pixels(seed)
        expected = engine.infer(image.astype(np.float32) / np.float32(divisor))
        np.testing.assert_allclose(engine.infer(image), expected, rtol=1e-4, atol=1e-5)
    engine.close()


def test_u8_and_f32_may_be_inferred_at_once(written):
    engine = load_engine(*written, threads=4, streams=2, divisor=255.0)
    images = [pixels(seed) for seed in range(16)]
    with ThreadPoolExecutor(2) as pool:
        by_bytes = pool.map(engine.infer, images)
        by_floats = pool.map(lambda each: engine.infer(each / np.float32(255)), images)
        for one, other in zip(by_bytes, by_floats, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    engine.close()


def test_the_input_is_unchanged(engine):
    tensor = noise(0)
    engine.infer(tensor)
    np.testing.assert_array_equal(tensor, noise(0))


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_wrong_shape_fails_and_the_engine_still_works(engine, kind):
    with pytest.raises(EngineFailed):
        engine.infer(np.zeros((1, 3, SIZE, SIZE // 2), kind))
    assert engine.infer(noise(0).astype(kind)).shape == (1, CELLS, COLUMNS)


def test_streams_infer_at_once_and_do_not_mix_images(written):
    alone = load_engine(*written, threads=1)
    expected = [alone.infer(noise(seed)) for seed in range(8)]
    alone.close()
    engine = load_engine(*written, threads=4, streams=4)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: engine.infer(noise(seed % 8)), range(64)))
    engine.close()
    for seed, raw in enumerate(found):
        np.testing.assert_allclose(raw, expected[seed % 8], rtol=1e-4, atol=1e-5)


def test_closing_twice_is_safe_and_a_closed_engine_fails(engine):
    engine.close()
    engine.close()
    for image in (noise(0), pixels(0)):
        with pytest.raises(EngineFailed, match="closed"):
            engine.infer(image)


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
        raws.append(loaded.infer(noise(3)))
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
    assert loaded.infer(noise(0)).shape == (1, CELLS, COLUMNS)
    assert logged in caplog.text
    assert bool(caplog.text) == bool(logged)
    loaded.close()
