import numpy as np
import pytest
from PIL import Image

from quantizer.calibration.images import (
    MAX_HELD_OUT,
    ImageFiles,
    chosen_size,
    evenly_spread,
    find_images,
    hold_out,
    read_pixels,
)
from quantizer.errors import NoCalibrationImages
from service.vision.image import MAX_PIXELS, decode_image
from service.vision.input_size import InputSize
from service.vision.preprocess import PREPROCESS, preprocess, tensor_of


def picture(path, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (20, 10), 90 if mode == "L" else (10, 200, 30)).save(path)


def test_images_are_found_below_the_folder_by_name(tmp_path):
    names = ["a.PNG", "b.jpg", "d.bmp", "deep/er/c.webp", "e.JPEG"]
    for name in names[::-1]:
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    assert find_images(tmp_path) == [tmp_path / name for name in names]


def test_a_path_that_is_no_folder_or_has_no_images_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for name in ("absent", "notes.txt"):
        with pytest.raises(NoCalibrationImages, match=f"no such folder: .*{name}"):
            find_images(tmp_path / name)
    with pytest.raises(NoCalibrationImages, match=r"\.jpg.*\.png"):
        find_images(tmp_path)


@pytest.mark.parametrize("count", [1, 5, 6, 7, 17, 96, 500])
def test_holding_out_is_a_partition_and_always_the_same(count, tmp_path):
    paths = [tmp_path / f"{index:03}.jpg" for index in range(count)]
    calibrating, held_out = hold_out(paths)
    assert sorted(calibrating + held_out) == paths
    assert not set(calibrating) & set(held_out)
    assert hold_out(paths) == (calibrating, held_out)
    assert len(held_out) == min(MAX_HELD_OUT, count // 6)
    gaps = np.diff([paths.index(path) for path in held_out])
    assert max(gaps, default=0) - min(gaps, default=0) <= 1  # spread evenly over the names


@pytest.mark.parametrize("count", [1, 31, 32, 33, 80])
def test_images_are_spread_evenly_and_the_first_is_one_of_them(count, tmp_path):
    paths = [tmp_path / f"{index:03}.jpg" for index in range(count)]
    spread = evenly_spread(paths, 32)
    assert len(spread) == min(count, 32)
    assert spread[0] == paths[0]
    gaps = np.diff([paths.index(path) for path in spread])
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


@pytest.mark.parametrize("how", PREPROCESS.values(), ids=PREPROCESS)
def test_calibration_tensors_are_those_of_the_server(photos, how):
    paths = find_images(photos)[:3]
    calibrated = list(ImageFiles(paths, InputSize.of(64), how).tensors())
    for path, tensor in zip(paths, calibrated, strict=True):
        prepared = preprocess(
            decode_image(path.read_bytes(), MAX_PIXELS), InputSize.of(64), how.padding
        )
        served = tensor_of(prepared.canvas, how)
        np.testing.assert_array_equal(tensor, served)


def test_undecodable_files_are_none_and_skipped(tmp_path):
    picture(tmp_path / "a.jpg", "L")
    (tmp_path / "b.jpg").write_bytes(b"no image")
    picture(tmp_path / "whole.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "whole.png").read_bytes()[:40])
    (tmp_path / "d.jpg").mkdir()
    paths = find_images(tmp_path)
    files = ImageFiles(paths, InputSize.of(32), PREPROCESS["yolo"])
    for images in (list(files.tensors()), list(read_pixels(paths))):
        assert [image is not None for image in images] == [True, False, False, False, True]
    assert [tensor.shape for tensor in files.decodable()] == [(1, 3, 32, 32)] * 2


def test_images_are_read_one_at_a_time(tmp_path):
    picture(tmp_path / "a.jpg")
    files = ImageFiles(
        [tmp_path / "a.jpg", tmp_path / "b.jpg"], InputSize.of(32), PREPROCESS["yolo"]
    )
    for images in (files.tensors(), read_pixels(files.paths)):
        (tmp_path / "b.jpg").unlink(missing_ok=True)
        assert next(images) is not None
        picture(tmp_path / "b.jpg")
        assert next(images) is not None


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ([(1920, 1080)], "640x384"),
        ([(1920, 1080), (1280, 720), (100, 900)], "640x384"),
        ([(640, 480)], "640x480"),
        ([(1080, 1920)], "384x640"),
        ([(300, 300)], "640x640"),
        ([(4000, 10)], "640x32"),
    ],
)
def test_auto_is_the_least_input_that_holds_the_median_image(sides, size, tmp_path):
    for number, each in enumerate(sides):
        Image.new("L", each).save(tmp_path / f"{number}.png")
    assert chosen_size("auto", find_images(tmp_path)) == InputSize.of(size)


def test_auto_sees_turned_images_upright_and_leaves_unreadable_ones_out(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 160)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    assert chosen_size("auto", find_images(tmp_path)) == InputSize(640, 384)


def test_auto_without_a_readable_image_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(NoCalibrationImages, match="--size"):
        chosen_size("auto", find_images(tmp_path))


def test_a_size_that_is_given_stays(tmp_path):
    assert chosen_size(None, []) is None
    assert chosen_size(InputSize(64, 96), []) == InputSize(64, 96)
