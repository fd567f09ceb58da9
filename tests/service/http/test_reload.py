"""Another version of a served model, over a socket: checked, switched under load, or refused."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import httpx
import pytest

from service.app import NO_SAMPLES, Changes
from service.folder_cache import publish
from service.inference.models import ModelFolder
from service.lifecycle import FolderSource
from service.manifest import CHECKSUMS, MANIFEST, write_manifest
from tests.fakes import CLASS_NAMES, FakeEngine, manifest_of, variants_of
from tests.qyolo.commands import inline
from tests.service.live import (
    FP32_RAW,
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

ADMIN, CAMERA = "secret-of-the-admin", "secret-of-the-camera"
KEYS = f"admin:{ADMIN},camera:{CAMERA}"
NEXT = "2026-02-02T00:00:00Z"
RELOAD = "/v1/models/tiny/reload"
OTHER = {"x": 45, "source_sha256": "cd" * 32}  # another float model, which finds other boxes


@pytest.fixture
def folder(tmp_path):
    write_model_folder(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    for index in range(3):
        (tmp_path / "pictures" / f"{index}.jpg").write_bytes(jpeg())
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"no picture")
    return tmp_path / "pictures"


@contextmanager
def admin(folder: Path, changes: Changes = NO_SAMPLES, **settings: object):
    with serving(source=FolderSource(folder), changes=changes, api_keys=KEYS, **settings) as live:
        live.client.headers["X-API-Key"] = ADMIN
        wait_until(lambda: live.client.get("/readyz").status_code == 200)
        yield live


def rebuild(folder: Path, **changes: object) -> None:
    publish(folder, lambda staging: write_model_folder(staging, **{"created": NEXT} | changes))


def served(live: Live) -> str:
    return live.client.get("/v1/models").json()["created"]


def reloads(live: Live, outcome: str, model: str = "tiny") -> float:
    found = samples(live.client)
    return sample(found, "qyolo_model_reloads_total", outcome=outcome, model=model)


def test_a_new_build_is_compared_and_served_without_losing_a_request(folder, pictures):
    stop = Event()

    def ask(live: Live) -> list[int]:
        statuses = []
        headers = {"X-API-Key": CAMERA}
        with httpx.Client(base_url=str(live.client.base_url), headers=headers) as client:
            while not stop.is_set():
                statuses.append(post(client, jpeg()).status_code)
        return statuses

    with admin(folder, Changes(pictures)) as live, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, live) for _ in range(4)]
        try:
            for number in range(3):
                before, now = served(live), f"2026-02-0{number + 1}T00:00:00Z"
                rebuild(folder, created=now)
                answer = live.client.post(RELOAD)
                assert answer.json() == {
                    "model": "tiny",
                    "switched": True,
                    "created": now,
                    "replaces": before,
                    "images": 3,
                    "boxes": 6,
                    "agreement": 1.0,
                    "served_with_fp32": 1.0,
                    "new_with_fp32": 1.0,
                }
                assert served(live) == now
        finally:
            stop.set()
        statuses = [status for each in asked for status in each.result()]
        assert set(statuses) == {200}
        assert len(statuses) > 20
        assert reloads(live, "switched") == 3


def test_a_request_that_has_begun_ends_on_the_old_version(tmp_path):
    engines = []

    def load(*_: object):
        engines.append(FakeEngine(FP32_RAW))
        return variants_of({"fp32": engines[-1]})

    write_manifest(tmp_path, manifest_of("fp32"))
    with serving(source=FolderSource(tmp_path), load=load, api_keys=KEYS, threads=8) as live:
        live.client.headers["X-API-Key"] = ADMIN
        wait_until(lambda: live.client.get("/readyz").status_code == 200)
        with stalled(engines[0], live) as request:
            assert live.client.post(RELOAD).json()["switched"]
            assert not engines[0].closed
        assert request.result().status_code == 200
        wait_until(lambda: engines[0].closed)
        assert not engines[1].closed


@pytest.mark.parametrize(
    ("changes", "query", "words"),
    [
        (OTHER, "min_agreement=0", "agrees with the served one to 0.000 on 3 images"),
        ({"class_names": ("a", "b", "c")}, "new_classes=true", "has other classes"),
    ],
)
def test_a_version_that_differs_is_refused_unless_it_is_allowed(
    folder, pictures, changes, query, words
):
    with admin(folder, Changes(pictures)) as live:
        before = served(live)
        rebuild(folder, **changes)
        problem = assert_problem(live.client.post(RELOAD), 409, "refused")
        assert words in problem["detail"]
        assert query.partition("=")[0] in problem["detail"]
        assert served(live) == before
        assert live.client.get("/v1/models").json()["class_names"] == list(CLASS_NAMES)
        assert post(live.client, jpeg()).status_code == 200
        assert reloads(live, "refused") == 1
        assert live.client.post(f"{RELOAD}?{query}").json()["switched"]
        assert served(live) == NEXT


def test_a_folder_that_is_not_whole_changes_nothing(folder):
    with admin(folder) as live:
        (folder / "fp32" / "model.onnx").unlink()
        problem = assert_problem(live.client.post(RELOAD), 409)
        assert "is incomplete: fp32/model.onnx is missing" in problem["detail"]
        assert post(live.client, jpeg()).status_code == 200


def test_only_the_key_named_admin_may_reload(folder):
    with admin(folder) as live:
        for key, status in ((CAMERA, 403), ("unknown-unknown-unknown", 401)):
            refused = live.client.post(RELOAD, headers={"X-API-Key": key})
            assert_problem(refused, status)
        assert_problem(live.client.post("/v1/models/boats/reload"), 404)
        assert_problem(live.client.post(f"{RELOAD}?min_agreement=2"), 422)
    with serving_folder(folder) as live:
        assert "QYOLO_API_KEYS=admin:" in assert_problem(live.client.post(RELOAD), 403)["detail"]


def test_a_watched_folder_is_reloaded_once_it_is_whole(folder, pictures, tmp_path, caplog):
    with admin(folder, Changes(pictures), watch_s=0.05) as live:
        fresh = tmp_path / "fresh"
        write_model_folder(fresh, created=NEXT)
        shutil.copy(fresh / CHECKSUMS, folder)  # as a copy does that is not done
        wait_until(lambda: "tiny is not reloaded yet" in caplog.text)
        assert served(live) != NEXT
        shutil.copytree(fresh, folder, dirs_exist_ok=True)
        wait_until(lambda: served(live) == NEXT)
        rebuild(folder, **OTHER | {"created": "2026-03-03T00:00:00Z"})
        wait_until(lambda: reloads(live, "refused") == 1)
        assert served(live) == NEXT


def test_an_unloaded_model_is_loaded_by_a_reload(folder, tmp_path):
    boats = [ModelFolder(folder, "boats")]
    with admin(folder, others=boats, model_memory=1) as live:
        rebuild(folder)
        change = live.client.post("/v1/models/boats/reload").json()
        assert (change["model"], change["switched"], change["agreement"]) == ("boats", True, None)
        assert post(live.client, jpeg(), "/v1/models/boats/detect").status_code == 200
        assert served(live) != NEXT


@contextmanager
def boats_unloaded(folder: Path, pictures: Path, boats: Path):
    """Of three models, boats has answered and then made room for cars."""
    write_model_folder(boats)
    others = [ModelFolder(boats, "boats"), ModelFolder(folder, "cars")]
    with admin(folder, Changes(pictures), others=others, model_memory=1) as live:
        for name in ("boats", "cars"):
            assert post(live.client, jpeg(), f"/v1/models/{name}/detect").status_code == 200
        yield live


def test_a_build_that_came_while_its_model_was_unloaded_is_compared_with_what_was_served(
    folder, pictures, tmp_path
):
    boats = tmp_path / "boats"
    with boats_unloaded(folder, pictures, boats) as live:
        rebuild(boats)
        assert post(live.client, jpeg(), "/v1/models/boats/detect").status_code == 200
        assert live.client.get("/v1/models?model=boats").json()["created"] == NEXT
        assert reloads(live, "switched", "boats") == 1


@pytest.mark.parametrize(
    ("changes", "words", "allowed"),
    [
        (OTHER, "agrees with the served one to 0.000 on 3 images", "min_agreement=0"),
        ({"class_names": ("a", "b", "c")}, "has other classes", "new_classes=true"),
    ],
)
def test_a_build_that_a_reload_would_refuse_is_not_served_after_an_unloading(
    folder, pictures, tmp_path, changes, words, allowed
):
    boats, path = tmp_path / "boats", "/v1/models/boats/detect"
    with boats_unloaded(folder, pictures, boats) as live:
        rebuild(boats, **changes)
        for _ in range(2):
            assert words in assert_problem(post(live.client, jpeg(), path), 503)["detail"]
        assert_problem(live.client.post("/v1/models/boats/reload"), 409)
        assert reloads(live, "refused", "boats") == 2  # by the first request, and by the command
        assert post(live.client, jpeg()).status_code == 200
        assert live.client.post(f"/v1/models/boats/reload?{allowed}").json()["switched"]
        assert post(live.client, jpeg(), path).status_code == 200


def test_the_command_reports_the_change_or_the_reason(folder):
    with admin(folder) as live:
        known = {"QYOLO_SERVER": live.client.base_url, "QYOLO_API_KEY": ADMIN}
        rebuild(folder)
        ran = inline("reload", **known)
        assert ran.code == 0
        assert f'"created": "{NEXT}"' in ran.out
        (folder / MANIFEST).unlink()
        ran = inline("reload", "tiny", **known)
        assert (ran.code, ran.out) == (2, "")
        assert "answers 409: the new version cannot be loaded" in ran.err
        ran = inline("reload", "--server", live.client.base_url)
        assert "answers 401: send an API key" in ran.err
    ran = inline("reload", "--server", "http://127.0.0.1:9")
    assert ran.code == 2
    assert "name it with --server" in ran.err
