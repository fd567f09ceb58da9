import hashlib
import os

import pytest

from quantizer.errors import UnsupportedModel
from tests.zoo.web import serving
from zoo.catalogue import Entry
from zoo.errors import Distrusted
from zoo.shelf import Shelf

BODY = os.urandom(50_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


def entry(**changes):
    facts = {
        "name": "tiny", "publisher": "Nobody", "licence": "MIT", "input": 640, "ap": 20.0,
        "params_m": 1.0, "address": "https://example.com/v1/tiny.onnx", "sha256": DIGEST,
    }  # fmt: skip
    return Entry(**facts | changes)


@pytest.fixture
def web():
    with serving({"/mirror/tiny.onnx": BODY}) as web:
        yield web


@pytest.fixture
def shelf(web, tmp_path):
    return Shelf(tmp_path / "models", f"{web.url}/mirror/")


def take(shelf, model, trust=False):
    return shelf.take(model, trust, lambda _: None)


def names(shelf):
    return sorted(path.name for path in shelf.folder.iterdir() if path.suffix != ".lock")


def test_a_model_is_downloaded_once(shelf, web):
    model = entry()
    assert not shelf.holds(model)
    path = take(shelf, model)
    assert path.read_bytes() == BODY
    assert shelf.holds(model)
    assert take(shelf, model) == path
    assert web.asked == [""]
    assert names(shelf) == ["tiny.onnx"]


def test_without_a_mirror_the_address_is_the_publishers(tmp_path):
    assert Shelf(tmp_path).address_of(entry()) == "https://example.com/v1/tiny.onnx"


def test_a_file_placed_by_hand_needs_no_network(shelf, web):
    shelf.folder.mkdir()
    shelf.path_of(entry()).write_bytes(BODY)
    assert take(shelf, entry()).read_bytes() == BODY
    assert web.asked == []


def test_a_download_with_another_checksum_is_never_used(shelf, web):
    web.files["/mirror/tiny.onnx"] = b"something else"
    with pytest.raises(Distrusted, match=f"{DIGEST} was expected"):
        take(shelf, entry())
    assert names(shelf) == []
    web.files["/mirror/tiny.onnx"] = BODY
    assert take(shelf, entry()).read_bytes() == BODY


def test_a_file_that_changed_on_the_shelf_is_not_used_and_not_deleted(shelf):
    path = take(shelf, entry())
    path.write_bytes(b"changed")
    with pytest.raises(Distrusted, match="was expected"):
        take(shelf, entry())
    assert path.read_bytes() == b"changed"


def test_an_unverified_model_needs_a_word_of_trust(shelf, web):
    with pytest.raises(Distrusted, match="--trust-on-first-use"):
        take(shelf, entry(sha256=None))
    assert web.asked == []


def test_what_was_trusted_once_is_held_to_its_checksum(shelf):
    unverified = entry(sha256=None)
    path = take(shelf, unverified, trust=True)
    assert names(shelf) == ["tiny.onnx", "tiny.onnx.sha256"]
    assert take(shelf, unverified) == path
    path.write_bytes(b"changed")
    for trust in (False, True):
        with pytest.raises(Distrusted, match=f"{DIGEST} was expected"):
            take(shelf, unverified, trust)


def test_a_model_published_as_a_pickle_is_refused_with_the_command_that_exports_it(shelf, web):
    pickle = entry(
        address="https://example.com/v1/tiny.pt", sha256=None, export="yolo export model=tiny.pt"
    )
    with pytest.raises(UnsupportedModel, match=r"pickle.*yolo export model=tiny\.pt"):
        take(shelf, pickle, trust=True)
    assert web.asked == []
