"""Several models in one server, over a socket."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.experiments.split import Split
from service.inference.models import ModelFolder
from service.inference.variants import VariantSet
from service.lifecycle import FolderSource
from service.manifest import CHECKSUMS, write_manifest
from tests.fakes import FakeEngine, manifest_of, variants_of
from tests.service.live import (
    FP32_RAW,
    INT8_RAW,
    Live,
    assert_problem,
    post,
    sample,
    samples,
    serving,
    serving_folder,
    stalled,
)
from tests.service.pictures import jpeg
from tests.service.tiny import write_model_folder
from tests.waiting import wait_until

ENCODED = base64.b64encode(jpeg()).decode()
ENGINE_BYTES = 1000


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A server of two model folders, with real engines."""
    folder = tmp_path_factory.mktemp("model")
    write_model_folder(folder)
    boats = [ModelFolder(folder, "boats")]
    with serving_folder(folder, others=boats, ab="other:1;boats=fp32:1,other:1") as live:
        yield live


@pytest.mark.parametrize(
    ("path", "variant"),
    [
        ("/v1/detect?model=boats&variant=fp32", "fp32"),
        ("/v1/models/boats:fp32/detect", "fp32"),
        ("/v1/models/boats:other/detect", "other"),
        ("/v1/models/boats/detect", Split({"fp32": 1, "other": 1}).choose("127.0.0.1")),
        ("/v1/models/boats:auto/detect", Split({"fp32": 1, "other": 1}).choose("127.0.0.1")),
    ],
)
def test_a_model_is_named_by_the_query_or_by_the_path(two, path, variant):
    answer = post(two.client, jpeg(), path)
    assert (answer.json()["model"], answer.json()["variant"]) == ("boats", variant)


@pytest.mark.parametrize(
    "path", ["/v1/detect", "/v1/models/other/detect", "/v1/models/tiny/detect"]
)
def test_without_a_name_the_first_model_answers(two, path):
    answer = post(two.client, jpeg(), path).json()
    assert (answer["model"], answer["variant"]) == ("tiny", "other")


def test_comparisons_and_reports_are_of_the_model_that_is_named(two):
    compared = post(two.client, jpeg(), "/v1/compare?model=boats&a=fp32&b=other").json()
    assert compared["model"] == "boats"
    assert len(compared["matched"]) == 1
    assert two.client.get("/v1/report?model=boats").json() == {"made": "here"}


def test_the_models_are_listed(two):
    listed = two.client.get("/v1/models").json()
    assert listed["model"] == "tiny"
    assert listed["variants"][0]["detect"] == "/v1/models/fp32/detect"
    assert [(row["model"], row["loaded"]) for row in listed["models"]] == [
        ("tiny", True),
        ("boats", True),
    ]
    boats = two.client.get("/v1/models?model=boats").json()
    assert boats["model"] == "boats"
    assert {row["name"]: row["share"] for row in boats["variants"]} == {"fp32": 0.5, "other": 0.5}
    for path in [row["detect"] for row in (*boats["variants"], listed["models"][1])]:
        assert post(two.client, jpeg(), path).json()["model"] == "boats"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/detect?model=cars", "no model 'cars'; there are: tiny, boats"),
        ("/v1/compare?model=cars", "no model 'cars'"),
        ("/v1/models/cars/detect", "and the models tiny, boats, as NAME or NAME:VARIANT"),
        ("/v1/models/boats:int8/detect", "no variant 'int8'; there are: fp32, other"),
        ("/v1/detect?model=boats&variant=int8", "no variant 'int8'; there are: fp32, other"),
    ],
)
def test_an_unknown_model_or_variant_of_it_is_404(two, path, words):
    assert words in assert_problem(post(two.client, jpeg(), path), 404)["detail"]


def test_other_protocols_reach_every_model(two):
    client = two.client
    names = ["tiny", "tiny-boxes", "boats", "boats-boxes"]
    assert client.get("/v2/models").json() == {"models": names}
    index = client.post("/v2/repository/index").json()
    assert {(row["name"], row["state"]) for row in index} == {(name, "READY") for name in names}
    assert client.get("/v2/models/boats").json()["versions"] == ["fp32", "other"]
    assert client.get("/v2/models/boats/ready").status_code == 200
    binary = {"Inference-Header-Content-Length": "0"}
    for path in ("boats-boxes", "boats-boxes/versions/fp32"):
        answer = client.post(f"/v2/models/{path}/infer", content=jpeg(), headers=binary)
        assert answer.headers["x-qyolo-variant"] in ("fp32", "other")
    assert answer.headers["x-qyolo-variant"] == "fp32"

    custom = client.post("/v1/vision/custom/list").json()["models"]
    assert custom == ["tiny", "tiny-fp32", "tiny-other", "boats", "boats-fp32", "boats-other"]
    image = {"image": ("a.jpg", jpeg(), "image/jpeg")}
    answer = client.post("/v1/vision/custom/boats-fp32", files=image).json()
    assert answer["moduleName"] == "boats fp32"

    registry = client.get("/model/registry").json()["models"]
    assert [row["model_id"] for row in registry][3:] == ["boats", "boats/fp32", "boats/other"]
    asked = {"model_id": "boats/fp32", "image": {"type": "base64", "value": ENCODED}}
    answer = client.post("/infer/object_detection", content=json.dumps(asked))
    assert answer.headers["x-qyolo-variant"] == "fp32"
    assert [row["class"] for row in answer.json()["predictions"]] == ["person"]


def test_metrics_tell_the_models_apart(two):
    def counted(model: str) -> float:
        labels = {"model": model, "variant": "fp32", "device": "cpu", "stage": "total"}
        return sample(samples(two.client), "qyolo_stage_duration_seconds_count", **labels)

    before = counted("tiny"), counted("boats")
    post(two.client, jpeg(), "/v1/models/boats:fp32/detect")
    assert (counted("tiny"), counted("boats")) == (before[0], before[1] + 1)
    found = samples(two.client)
    assert {dict(labels)["model"] for name, labels in found if name == "qyolo_model_info"} == {
        "tiny",
        "boats",
    }


@dataclass(frozen=True)
class Loads:
    """Folders with manifests, and fakes in place of their engines."""

    home: Path
    engines: dict[str, list[FakeEngine]]  # by model, the first load's first

    def __call__(self, folder: Path, threads: int, throughput: bool) -> VariantSet:
        if not (folder / CHECKSUMS).exists():
            raise OSError("/secret: the disk is gone")
        engine = FakeEngine(FP32_RAW if folder.name == "cars" else INT8_RAW)
        self.engines[folder.name].append(engine)
        return variants_of({"fp32": engine}, name=folder.name)


@contextmanager
def models(home: Path, *names: str, **settings: object) -> Iterator[tuple[Live, Loads]]:
    loads = Loads(home, {name: [] for name in names})
    for name in names:
        engine = home / name / "fp32" / "model.onnx"
        engine.parent.mkdir(parents=True)
        engine.write_bytes(bytes(ENGINE_BYTES))
        write_manifest(home / name, manifest_of("fp32", name=name))
    first, *others = [ModelFolder(home / name) for name in names]
    with serving(source=FolderSource(first.folder), load=loads, others=others, **settings) as live:
        wait_until(lambda: live.failures or live.client.get("/readyz").status_code == 200)
        yield live, loads


def loaded(live: Live) -> set[str]:
    rows = live.client.get("/v1/models").json()["models"]
    return {row["model"] for row in rows if row["loaded"]}


def test_beyond_the_memory_limit_the_model_used_longest_ago_is_unloaded(tmp_path):
    with models(tmp_path, "first", "boats", "cars", model_memory=1) as (live, loads):
        assert loaded(live) == {"first"}
        for name in ("boats", "cars", "boats"):
            answer = post(live.client, jpeg(), f"/v1/models/{name}/detect")
            assert answer.json()["model"] == name
            assert loaded(live) == {"first", name}
        assert [len(loads.engines[name]) for name in ("first", "boats", "cars")] == [1, 2, 1]
        wait_until(lambda: loads.engines["boats"][0].closed and loads.engines["cars"][0].closed)
        index = live.client.post("/v2/repository/index").json()
        assert {(row["name"], row["state"]) for row in index if row["name"] in loads.engines} == {
            ("first", "READY"),
            ("boats", "READY"),
            ("cars", "UNAVAILABLE"),
        }
        assert live.client.get("/v2/models/cars/ready").status_code == 200
        found = samples(live.client)
        assert sample(found, "qyolo_model_memory_bytes", model="cars") == 0
        assert sample(found, "qyolo_model_memory_bytes", model="boats") >= ENGINE_BYTES
        assert not loads.engines["first"][0].closed
    assert loads.engines["boats"][1].closed
    assert loads.engines["first"][0].closed


def test_an_engine_is_freed_when_its_last_request_has_ended(tmp_path):
    with models(tmp_path, "first", "boats", "cars", model_memory=1, threads=8) as (live, loads):
        post(live.client, jpeg(), "/v1/models/boats/detect")
        (boats,) = loads.engines["boats"]
        with stalled(boats, live, "/v1/models/boats/detect") as request:
            assert live.client.get("/v1/report?model=cars").status_code == 200
            assert loaded(live) == {"first", "cars"}
            assert not boats.closed
        assert request.result().status_code == 200
        wait_until(lambda: boats.closed)


def test_one_admission_is_for_all_models(tmp_path):
    with models(tmp_path, "first", "boats", capacity=1) as (live, loads):
        with stalled(loads.engines["first"][0], live):
            assert_problem(post(live.client, jpeg(), "/v1/models/boats/detect"), 429)
        assert post(live.client, jpeg(), "/v1/models/boats/detect").status_code == 200


def test_a_model_that_cannot_be_loaded_is_503_and_leaves_the_others_alone(tmp_path):
    with models(tmp_path, "first", "boats", model_memory=1) as (live, _):
        (tmp_path / "boats" / CHECKSUMS).unlink()
        for _ in range(2):
            problem = assert_problem(post(live.client, jpeg(), "/v1/models/boats/detect"), 503)
            assert problem["detail"] == "the model boats cannot be loaded; the log says why"
        assert post(live.client, jpeg()).status_code == 200


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("tiny", {}, "the name 'tiny' is taken: give the model another one, as NAME="),
        ("int8", {}, "the name 'int8' cannot be used"),
        ("a:b", {}, "the name 'a:b' cannot be used"),
        ("boats", {"ab": "cars=fp32:1"}, "names no model of this server: 'cars'"),
        ("boats", {"ab": "boats=int8:1"}, "names no variant of this model: 'int8'"),
    ],
)
def test_a_bad_name_ends_the_server_with_a_reason(tmp_path, name, settings, words):
    write_manifest(tmp_path, manifest_of("fp32", name=name))
    engine = FakeEngine(FP32_RAW)
    others = [ModelFolder(tmp_path)]
    source = FolderSource(Path())
    loads = lambda *_: variants_of({"fp32": engine})  # noqa: E731
    with serving(source=source, load=loads, others=others, **settings) as live:
        wait_until(lambda: bool(live.failures))
    assert words in live.failures[0]
    assert engine.closed


@pytest.mark.parametrize(
    ("text", "folder", "name"),
    [("a/b", "a/b", None), ("boats=a/b", "a/b", "boats"), ("a/b=c", "a/b=c", None)],
)
def test_a_folder_may_have_a_name(text, folder, name):
    assert ModelFolder.parse(text) == ModelFolder(Path(folder), name)
