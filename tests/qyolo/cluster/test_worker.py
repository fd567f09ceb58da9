"""A worker in this process: its node's cache has the folder, so that no other node is called."""

import asyncio
import os
import sys

import pytest

pytest.importorskip("ray", reason="the extra cluster is missing")

from qyolo.cluster.compatibility import Incompatible, compatibility_of
from qyolo.cluster.distribution import distribute, fetch
from qyolo.cluster.worker import Worker
from service.errors import BadModelFolder, EngineFailed, ModelUnavailable, NotAnImage, VariantFailed
from service.inference.backend import ImageRequest
from service.inference.detector import Detector
from service.inference.health import FAILURES
from service.inference.results import Answer
from service.manifest import read_manifest, verify
from service.settings import Settings
from service.vision.postprocess import Query
from tests.fakes import FakeEngine
from tests.processes import run_python
from tests.service.live import FP32_RAW
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


def test_a_distributed_folder_is_fetched_completely(folder):
    name = distribute(folder)
    assert distribute(folder) == name
    verify(fetch(name))


def test_a_damaged_folder_is_not_distributed(folder):
    (folder / "report.json").write_text("{}")
    with pytest.raises(BadModelFolder):
        distribute(folder)


def test_a_worker_answers_ingresses_of_compatible_models_only(worker, folder):
    ours = compatibility_of(read_manifest(folder))
    answer = asyncio.run(worker.detect(ours, IMAGE))
    assert isinstance(answer, Answer)
    assert answer.variant == "other"
    other = read_manifest(folder).model_copy(update={"class_names": ("a", "b", "c")})
    refused = asyncio.run(worker.detect(compatibility_of(other), IMAGE))
    assert isinstance(refused, Incompatible)


def test_errors_for_the_client_are_returned(worker, folder):
    ours = compatibility_of(read_manifest(folder))
    assert isinstance(asyncio.run(worker.detect(ours, ImageRequest(b"no", Query()))), NotAnImage)


def test_a_worker_whose_engine_fails_is_not_healthy(worker, folder):
    """Its ingress sends the request to another one, and Ray replaces it."""
    ours = compatibility_of(read_manifest(folder))
    asyncio.run(worker.check_health())
    variants = worker._pipeline.variants
    engine = FakeEngine(FP32_RAW)
    engine.failure = EngineFailed("broken")
    variants.replace("other", Detector(engine, variants.manifest))
    variants.load = lambda name: Detector(engine, variants.manifest)
    answers = [asyncio.run(worker.detect(ours, IMAGE)) for _ in range(FAILURES + 1)]
    assert [type(each) for each in answers] == [EngineFailed] * FAILURES + [VariantFailed]
    with pytest.raises(ModelUnavailable, match="other failed"):
        asyncio.run(worker.check_health())


def test_moving_a_folder_needs_no_module_of_the_quantizer():
    code = "import sys, qyolo.cluster.worker; print([m for m in sys.modules if 'quantizer' in m])"
    assert run_python(code) == "[]\n"


def test_a_worker_turns_telemetry_off_before_it_loads_a_runtime(folder, monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    monkeypatch.delitem(sys.modules, "openvino_telemetry")
    Worker(distribute(folder), "other", Settings(), threads=1, capacity=4)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert sys.modules["openvino_telemetry"] is None
