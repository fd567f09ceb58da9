import hashlib
import os

import pytest

from quantizer.errors import UnsupportedModel
from tests.zoo.web import serving
from zoo.catalogue import Entry
from zoo.errors import Distrusted, DownloadFailed
from zoo.store import ModelStore

BODY = os.urandom(50_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


def entry(**changes):
    fields = {
        "name": "tiny", "publisher": "Nobody", "licence": "MIT", "input": 640, "ap": 20.0,
        "params_m": 1.0, "address": "https://example.com/v1/tiny.onnx", "sha256": DIGEST,
    }  # fmt: skip
    return Entry(**fields | changes)


@pytest.fixture
def web():
    with serving({"/mirror/tiny.onnx": BODY}) as web:
        yield web


@pytest.fixture
def store(web, tmp_path):
    return ModelStore(tmp_path / "models", f"{web.url}/mirror/")


def take(store, model, trust=False):
    return store.take(model, trust, lambda _: None)


def names(store):
    return sorted(path.name for path in store.folder.iterdir() if path.suffix != ".lock")


def test_a_model_is_downloaded_once_from_the_mirror_or_its_publisher(store, web):
    model = entry()
    assert not store.holds(model)
    path = take(store, model)
    assert path.read_bytes() == BODY
    assert store.holds(model)
    assert take(store, model) == path
    assert web.asked == [""]
    assert names(store) == ["tiny.onnx"]
    assert ModelStore(store.folder).address_of(model) == "https://example.com/v1/tiny.onnx"


def test_a_file_placed_by_hand_needs_no_network(store, web):
    store.folder.mkdir()
    store.path_of(entry()).write_bytes(BODY)
    assert take(store, entry()).read_bytes() == BODY
    assert web.asked == []


def test_a_download_with_another_checksum_is_never_used(store, web):
    web.files["/mirror/tiny.onnx"] = b"something else"
    with pytest.raises(Distrusted, match=f"not {DIGEST}"):
        take(store, entry())
    assert names(store) == []
    web.files["/mirror/tiny.onnx"] = BODY
    assert take(store, entry()).read_bytes() == BODY


def test_no_more_bytes_are_downloaded_than_the_catalogue_says(store, web):
    web.endless = True
    with pytest.raises(DownloadFailed, match=f"more than the {len(BODY)} bytes"):
        take(store, entry(bytes=len(BODY)))
    assert names(store) == []


def test_a_stored_file_that_changed_is_neither_used_nor_deleted(store):
    path = take(store, entry())
    path.write_bytes(b"changed")
    with pytest.raises(Distrusted, match="not used"):
        take(store, entry())
    assert path.read_bytes() == b"changed"


def test_a_model_without_a_checksum_needs_trust_on_first_use_and_must_stay_the_same(store, web):
    unverified = entry(sha256=None)
    with pytest.raises(Distrusted, match="--trust-on-first-use"):
        take(store, unverified)
    assert web.asked == []
    path = take(store, unverified, trust=True)
    assert names(store) == ["tiny.onnx", "tiny.onnx.sha256"]
    assert take(store, unverified) == path
    path.write_bytes(b"changed")
    for trust in (False, True):
        with pytest.raises(Distrusted, match=f"not {DIGEST}"):
            take(store, unverified, trust)


def test_a_pickle_is_refused_with_its_export_command(store, web):
    pickle = entry(
        address="https://example.com/v1/tiny.pt", sha256=None, export="yolo export model=tiny.pt"
    )
    with pytest.raises(UnsupportedModel, match=r"pickle.*yolo export model=tiny\.pt"):
        take(store, pickle, trust=True)
    assert web.asked == []
