"""A worker alone, in this process: the folder lies on the shelf, so that no cluster is asked."""

import asyncio
import os
import subprocess
import sys

import pytest

pytest.importorskip("ray", reason="the extra cluster is missing")

from qyolo.cluster.compatibility import OtherModel, contract_of
from qyolo.cluster.distribution import distribute, fetch
from qyolo.cluster.worker import Worker
from service.errors import BadModelFolder, NotAnImage
from service.inference.backend import ImageRequest
from service.inference.results import Answer
from service.manifest import read_manifest, verify
from service.settings import Settings
from service.vision.postprocess import Query
from tests.service.pictures import jpeg
from tests.service.tiny import write_model_folder

IMAGE = ImageRequest(jpeg(), Query())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("QYOLO_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    write_model_folder(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def worker(folder):
    return Worker(distribute(folder), "other", Settings(), threads=1, capacity=4)


def test_what_was_shipped_is_received_whole(folder):
    name = distribute(folder)
    assert distribute(folder) == name
    verify(fetch(name))


def test_a_damaged_folder_is_not_shipped(folder):
    (folder / "report.json").write_text("{}")
    with pytest.raises(BadModelFolder):
        distribute(folder)


def test_it_answers_a_front_of_its_own_model_only(worker, folder):
    ours = contract_of(read_manifest(folder))
    answer = asyncio.run(worker.detect(ours, IMAGE))
    assert isinstance(answer, Answer)
    assert answer.variant == "other"
    other = read_manifest(folder).model_copy(update={"class_names": ("a", "b", "c")})
    refused = asyncio.run(worker.detect(contract_of(other), IMAGE))
    assert isinstance(refused, OtherModel)


def test_what_the_client_is_to_read_is_returned(worker, folder):
    ours = contract_of(read_manifest(folder))
    assert isinstance(asyncio.run(worker.detect(ours, ImageRequest(b"no", Query()))), NotAnImage)


def test_moving_a_folder_needs_no_module_of_the_quantizer():
    code = "import sys, qyolo.cluster.worker; print([m for m in sys.modules if 'quantizer' in m])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_it_turns_telemetry_off_before_it_loads_a_runtime(folder, monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    monkeypatch.delitem(sys.modules, "openvino_telemetry")
    Worker(distribute(folder), "other", Settings(), threads=1, capacity=4)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert sys.modules["openvino_telemetry"] is None
