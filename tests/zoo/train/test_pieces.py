"""A pack that is sent in pieces is the same pack, but for the loss of JPEG."""

import numpy as np
import pytest
from PIL import Image

from zoo.train.pack import CLASS_SCORES, Pack, PackWriter
from zoo.train.pieces import join, split


def photo(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((320, 240 + seed), Image.Resampling.BICUBIC)


@pytest.fixture
def pack(tmp_path):
    """Five photos, of which the fourth is labelled and the fifth is labelled as empty."""
    labels = {3: [[16, 0.1, 0.2, 0.5, 0.6], [0, 0.0, 0.0, 1.0, 0.25]], 4: []}
    with PackWriter(tmp_path / "pack") as writer:
        for seed in range(5):
            writer.add(photo(seed), labels.get(seed))
    return Pack.open(tmp_path / "pack")


def test_joined_pieces_are_the_pack(pack, tmp_path):
    assert split(pack, tmp_path / "pieces", max_bytes=20_000) > 1
    joined = join(tmp_path / "pieces", tmp_path / "joined")
    assert np.array_equal(joined.places, pack.places)
    for number in range(5):
        for level in (0, 1):
            there, here = (p.photo(number, level).astype(int) for p in (joined, pack))
            assert np.abs(there - here).mean() < 4
    assert joined.labels.keys() == {3, 4}
    assert np.array_equal(joined.labels[3], pack.labels[3])
    assert joined.labels[4].shape == (0, 5)
    assert joined.class_scores is None


def test_no_piece_is_larger_than_allowed(pack, tmp_path):
    assert split(pack, tmp_path / "pieces", max_bytes=20_000) < 5
    for piece in (tmp_path / "pieces").iterdir():
        assert piece.stat().st_size <= 20_000


def test_class_scores_travel_with_their_photos(pack, tmp_path):
    scores = np.random.default_rng(0).random((5, 80)).astype(np.float16)
    np.save(tmp_path / "pack" / CLASS_SCORES, scores)
    split(Pack.open(tmp_path / "pack"), tmp_path / "pieces", max_bytes=20_000)
    joined = join(tmp_path / "pieces", tmp_path / "joined")
    assert joined.class_scores == pytest.approx(scores, abs=1e-3)


def write_half(folder) -> None:
    with PackWriter(folder) as writer:
        writer.add(photo(0), None)
        raise KeyboardInterrupt


def test_an_interrupted_writer_leaves_no_pack(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path)
    assert not (tmp_path / "places.npy").exists()
