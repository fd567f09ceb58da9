import pytest

from service.vision.input_size import InputSize


@pytest.mark.parametrize(
    ("written", "size", "again"),
    [
        (640, InputSize(640, 640), 640),
        ("640", InputSize(640, 640), 640),
        ("640x640", InputSize(640, 640), 640),
        ("640x384", InputSize(640, 384), "640x384"),
        ("384x640", InputSize(384, 640), "384x640"),
    ],
)
def test_a_size_is_read_and_written_back(written, size, again):
    assert InputSize.of(written) == size
    assert InputSize.of(size) is size
    assert size.written == again
    assert str(size) == str(again)
    assert InputSize.of(size.written) == size


@pytest.mark.parametrize(
    "written",
    [0, -640, 640.0, True, None, "", "0", "640x", "x384", "640x0", "640X384", "640*384", " 640",
     "640x384x3", "6400000", "wide", "\u0666\u0664\u0660"],
)  # fmt: skip
def test_anything_else_is_refused(written):
    with pytest.raises(ValueError, match="640x384"):
        InputSize.of(written)


def test_an_image_shrinks_until_both_sides_fit():
    size = InputSize(640, 384)
    assert size.shrink(1280, 720) == 2
    assert size.shrink(640, 768) == 2
    assert size.shrink(320, 100) == 0.5
