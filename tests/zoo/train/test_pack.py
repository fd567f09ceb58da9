"""The pack of training photos: its contents, the dropped photos, and the labels."""

import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from quantizer.model.coco_names import COCO_NAMES
from zoo.train.pack import LONG_SIDE, Pack, pack


def photo(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """Coloured blobs: different seeds look different."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        photo(seed).save(folder / f"{seed}.png")
    return folder


def packed(source, tmp_path, held_out=()) -> Pack:
    return pack([source], list(held_out), tmp_path / "pack")


def test_a_photo_is_packed_at_full_and_half_size_and_read_from_disk(source, tmp_path):
    made = packed(source, tmp_path)
    assert len(made) == 3
    assert np.array_equal(made.photo(1, 0), np.asarray(photo(1)))
    big = photo(9, 2 * LONG_SIDE, LONG_SIDE)
    big.save(source / "9.png")
    made = packed(source, tmp_path)
    assert made.photo(3, 0).shape == (LONG_SIDE // 2, LONG_SIDE, 3)
    assert made.photo(3, 1).shape == (LONG_SIDE // 4, LONG_SIDE // 2, 3)
    again = Pack.open(tmp_path / "pack")
    assert len(again) == 4
    assert np.array_equal(again.photo(2, 0), made.photo(2, 0))


@pytest.mark.parametrize("change", [lambda p: p, ImageOps.mirror, lambda p: p.resize((200, 150))])
def test_photos_that_look_like_a_held_out_one_are_dropped(source, tmp_path, change, capsys):
    held_out = tmp_path / "val2017"
    held_out.mkdir()
    change(photo(1)).convert("RGB").save(held_out / "renamed.jpg", quality=70)
    assert len(packed(source, tmp_path, [held_out])) == 2
    assert "'held out': 1" in capsys.readouterr().out


def test_repeated_small_grey_and_broken_photos_are_dropped(source, tmp_path, capsys):
    photo(1).save(source / "again.png")
    photo(5, 100, 80).save(source / "small.png")
    photo(6).convert("L").save(source / "grey.png")
    (source / "broken.jpg").write_bytes(b"\xff\xd8 no")
    assert len(packed(source, tmp_path)) == 3
    printed = capsys.readouterr().out
    for reason in ("twice", "small", "grey", "unreadable"):
        assert f"'{reason}': 1" in printed


def test_folders_of_cocos_validation_images_are_not_read(source, tmp_path):
    (source / "val2017").mkdir()
    photo(7).save(source / "val2017" / "7.png")
    assert len(packed(source, tmp_path)) == 3


def coco(names) -> dict:
    return {
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
        "images": [{"id": 5, "file_name": "1.png", "width": 320, "height": 240}],
        "annotations": [
            {"image_id": 5, "category_id": 17, "bbox": [32, 24, 160, 120]},
            {"image_id": 5, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"image_id": 6, "category_id": 1, "bbox": [0, 0, 9, 9]},
        ],
    }


def test_coco_json_labels_the_photos_that_it_names(source, tmp_path):
    (source / "instances.json").write_text(json.dumps(coco(COCO_NAMES)))
    labels = packed(source, tmp_path).labels
    assert list(labels) == [1]
    assert labels[1] == pytest.approx(np.array([[16, 0.1, 0.1, 0.6, 0.6]]))


def test_annotations_of_fewer_classes_are_ignored(source, tmp_path):
    (source / "instances.json").write_text(json.dumps(coco(COCO_NAMES[:20])))
    (source / "other.json").write_text("[1, 2]")
    assert packed(source, tmp_path).labels == {}


def test_yolo_text_labels_coco_train_photos(source, tmp_path):
    photo(8).convert("RGB").save(source / "8.jpg", quality=95)
    folder = source / "labels" / "train2017"
    folder.mkdir(parents=True)
    (folder / "8.txt").write_text("16 0.5 0.5 0.2 0.4\n\n")
    labels = packed(source, tmp_path).labels
    assert labels[3] == pytest.approx(np.array([[16, 0.4, 0.3, 0.6, 0.7]]))
