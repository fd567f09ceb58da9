import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import BadModelFolder
from service.manifest import CHECKSUMS, MANIFEST, Manifest, Variant, read_manifest, write_manifest
from service.vision.input_size import InputSize
from tests.fakes import manifest_of

FILES = ["fp32/model.onnx", "fp32/weights.bin", "report.json"]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode() * 10)
    write_manifest(tmp_path, manifest_of("fp32", class_names=("chien", "âne")))
    return tmp_path


def test_a_written_manifest_is_read(folder):
    assert read_manifest(folder) == manifest_of("fp32", class_names=("chien", "âne"))


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (640, InputSize(640, 640)),  # as every build wrote it until there were other shapes
        ("640x384", InputSize(640, 384)),
    ],
)
def test_the_size_is_a_number_for_a_square_and_text_for_another_shape(folder, written, size):
    document = json.loads((folder / MANIFEST).read_text()) | {"size": written}
    assert Manifest.model_validate_json(json.dumps(document)).size == size
    write_manifest(folder, manifest_of("fp32", size=written))
    assert json.loads((folder / MANIFEST).read_text())["size"] == written
    assert read_manifest(folder).size == size


@pytest.mark.parametrize("written", [0, -64, "640x", "640 x 384", [640, 384], None, 64.5])
def test_a_size_of_another_form_is_refused(folder, written):
    document = json.loads((folder / MANIFEST).read_text()) | {"size": written}
    with pytest.raises(ValidationError, match="640x384"):
        Manifest.model_validate_json(json.dumps(document))


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_one_flipped_byte_is_noticed(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BadModelFolder, match=f"{name} has changed"):
        read_manifest(folder)


def test_a_flipped_byte_in_the_checksums_is_noticed(folder):
    intact = (folder / CHECKSUMS).read_bytes()
    for position in range(0, len(intact), 7):
        damaged = intact[:position] + bytes([intact[position] ^ 1]) + intact[position + 1 :]
        (folder / CHECKSUMS).write_bytes(damaged)
        with pytest.raises(BadModelFolder):
            read_manifest(folder)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(BadModelFolder, match=f"{name} is missing"):
        read_manifest(folder)


def test_an_extra_file_is_named(folder):
    (folder / "fp32" / "more").touch()
    with pytest.raises(BadModelFolder, match="fp32/more"):
        read_manifest(folder)


def test_a_folder_without_checksums_is_no_model_folder(folder):
    (folder / CHECKSUMS).unlink()
    (folder / "empty").mkdir()
    for path in (folder, folder / "empty", folder / "missing"):
        with pytest.raises(BadModelFolder, match="not a model folder"):
            read_manifest(path)


def test_checksums_without_a_manifest_are_no_model_folder(tmp_path):
    (tmp_path / CHECKSUMS).touch()
    with pytest.raises(BadModelFolder, match=MANIFEST):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path", ["../model.onnx", "/etc/passwd", "fp32/../../x"])
@pytest.mark.parametrize("field", ["model", "blob"])
def test_no_path_may_leave_the_folder(path, field):
    variant = {"runtime": "onnxruntime", "precision": "fp32", "model": "m", field: path}
    with pytest.raises(ValidationError, match="leaves the folder"):
        manifest_of("fp32", variants={"fp32": Variant.model_validate(variant)})


def test_a_manifest_of_another_format_is_refused(folder):
    manifest = manifest_of("fp32").model_copy(update={"format": 2})
    write_manifest(folder, manifest)
    with pytest.raises(BadModelFolder, match="format"):
        read_manifest(folder)


def test_the_default_must_exist():
    with pytest.raises(ValidationError, match="int8"):
        manifest_of("fp32", default="int8")


def test_a_class_without_a_name_has_its_number():
    manifest = manifest_of("fp32")
    assert manifest.class_name(2) == "dog"
    assert manifest.class_name(3) == "class 3"
    assert manifest.class_name(-1) == "class -1"
