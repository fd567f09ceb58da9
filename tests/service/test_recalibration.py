"""A model is calibrated on its collected images while it is served."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.app import Changes
from service.errors import ModelUnavailable
from service.inference.models import Model, ModelFolder
from service.lifecycle import FolderSource
from service.progress import Progress
from service.recalibration import MIN_IMAGES
from tests.fakes import FailingSource, HeldSource
from tests.qyolo.commands import inline
from tests.service.http.test_reload import ADMIN, CAMERA, NEXT, admin
from tests.service.live import assert_problem, post
from tests.service.pictures import encoded, jpeg
from tests.service.tiny import write_model_folder
from tests.waiting import wait_until

PATH = "/v1/models/tiny/recalibrate"


@pytest.fixture
def collected(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(MIN_IMAGES):
        (folder / f"served-{index:05d}.jpg").write_bytes(jpeg())
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    write_model_folder(tmp_path / "model")
    return tmp_path / "model"


class Rebuild:
    """Counts the builds; each is held at one progress until it is released."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: list[int] = []
        self.sources: list[HeldSource] = []

    def __call__(self, model: Model, images: Path) -> HeldSource:
        assert model.manifest.default == "other"
        self.images.append(len(list(images.iterdir())))
        self.sources.append(HeldSource(Progress("calibrating", 3, 16), self.folder))
        return self.sources[-1]


def of_tiny(rebuild) -> dict:
    return {} if rebuild is None else {"tiny": rebuild}


def state(live) -> str:
    return live.client.get(PATH).json()["state"]


def test_a_build_is_offered_first_and_served_when_that_is_asked_for(folder, collected, tmp_path):
    fresh = tmp_path / "fresh"
    write_model_folder(fresh, x=45, created=NEXT)
    rebuild = Rebuild(fresh)
    with admin(folder, Changes(None, of_tiny(rebuild)), collect=collected) as live:
        assert state(live) == "idle"
        begun = live.client.post(PATH)
        assert begun.status_code == 202
        wait_until(lambda: live.client.get(PATH).json()["phase"] is not None)
        now = live.client.get(PATH).json()
        assert (now["state"], now["phase"], now["done"]) == ("building", "calibrating", 3)
        assert "in progress" in assert_problem(live.client.post(PATH), 409)["detail"]
        rebuild.sources[0].release()
        wait_until(lambda: state(live) == "offered")
        change = live.client.get(PATH).json()["change"]
        # Far from what is served, but at fp32: the served calibration was the one that was wrong.
        assert change == {
            "model": "tiny",
            "switched": False,
            "created": NEXT,
            "replaces": "2026-01-01T00:00:00Z",
            "images": MIN_IMAGES,
            "boxes": 2 * MIN_IMAGES,
            "agreement": 0.0,
            "served_with_fp32": 0.0,
            "new_with_fp32": 1.0,
        }
        assert live.client.get("/v1/models").json()["created"] != NEXT
        assert live.client.post(f"{PATH}?switch=true").status_code == 202
        wait_until(lambda: state(live) == "switched")
        assert live.client.get("/v1/models").json()["created"] == NEXT
    assert rebuild.images == [MIN_IMAGES]


def test_a_build_that_fails_changes_nothing_and_says_why(folder, collected):
    full = FailingSource(ModelUnavailable("the disk is full"))
    changes = Changes(None, of_tiny(lambda *_: full))
    with admin(folder, changes, collect=collected) as live:
        live.client.post(f"{PATH}?switch=true")
        wait_until(lambda: state(live) == "failed")
        assert live.client.get(PATH).json()["detail"] == "the disk is full"
        ran = inline("recalibrate", QYOLO_SERVER=live.client.base_url, QYOLO_API_KEY=ADMIN)
        assert ran.code == 2
        assert "the recalibration failed: the disk is full" in ran.err
        assert live.client.get("/v1/models").json()["created"] != NEXT


def test_a_stop_cancels_the_build(folder, collected):
    rebuild = Rebuild(folder)
    with admin(folder, Changes(None, of_tiny(rebuild)), collect=collected) as live:
        live.client.post(PATH)
        wait_until(lambda: state(live) == "building" and rebuild.sources)
        live.exit()
    assert live.failures == []


def test_each_model_is_calibrated_on_its_own_images(folder, tmp_path):
    """One build at a time, and no image of one model in the build of another."""
    shades, fresh, held = {}, tmp_path / "fresh", []
    write_model_folder(fresh, name="boats", created=NEXT)

    def rebuild(model: Model, images: Path) -> HeldSource:
        pictures = [Image.open(path) for path in images.iterdir()]
        shades[model.name] = sorted(round(np.asarray(each).mean()) for each in pictures)
        held.append(HeldSource(Progress("calibrating"), fresh))
        return held[-1]

    settings = {"collect": tmp_path / "images", "others": [ModelFolder(folder, "boats")]}
    rebuilds = {"tiny": rebuild, "boats": rebuild}
    with admin(folder, Changes(None, rebuilds), **settings) as live:
        for _ in range(MIN_IMAGES):
            for shade, name in ((40, "tiny"), (200, "boats")):
                image = encoded(Image.new("RGB", (60, 40), (shade,) * 3), "PNG")
                assert post(live.client, image, f"/v1/models/{name}/detect").status_code == 200
        boats = "/v1/models/boats/recalibrate"
        wait_until(lambda: len(list((tmp_path / "images").rglob("*.jpg"))) == 2 * MIN_IMAGES)
        assert live.client.post(boats).status_code == 202
        wait_until(lambda: shades)
        assert "in progress" in assert_problem(live.client.post(PATH), 409)["detail"]
        assert state(live) == "idle"
        held[0].release()
        wait_until(lambda: live.client.get(boats).json()["state"] == "offered")
        live.client.post(PATH)
        wait_until(lambda: len(shades) == 2)
        assert live.client.get(boats).json()["state"] == "offered"
        live.client.post(f"{boats}?switch=true")
        assert_problem(live.client.post(f"{boats}?switch=true"), 409)
        held[1].release()
        wait_until(lambda: state(live) == "offered")
        live.client.post(f"{boats}?switch=true")
        wait_until(lambda: live.client.get(boats).json()["state"] == "switched")
        assert live.client.get("/v1/models?model=boats").json()["created"] == NEXT
        assert live.client.get("/v1/models").json()["created"] != NEXT
    assert shades == {"tiny": [40] * MIN_IMAGES, "boats": [200] * MIN_IMAGES}


def test_an_unloaded_model_is_loaded_to_be_compared(folder, collected, tmp_path):
    fresh, home = tmp_path / "fresh", tmp_path / "of-models"
    write_model_folder(fresh, created=NEXT)
    home.mkdir()
    collected.rename(home / "boats")
    rebuilds = {"boats": lambda *_: FolderSource(fresh)}
    settings = {"collect": home, "others": [ModelFolder(folder, "boats")], "model_memory": 1}
    with admin(folder, Changes(None, rebuilds), **settings) as live:
        boats = "/v1/models/boats/recalibrate"
        live.client.post(boats)
        wait_until(lambda: live.client.get(boats).json()["state"] == "offered")
        change = live.client.get(boats).json()["change"]
        assert (change["images"], change["agreement"]) == (MIN_IMAGES, 1.0)


@pytest.mark.parametrize(
    ("settings", "rebuild", "words"),
    [
        ({}, FolderSource, "no images are collected: start the server with --collect DIR"),
        ({"collect": "few"}, FolderSource, "0 images are collected, of at least 16"),
        ({"collect": "few"}, None, "`qyolo up MODEL` knows it"),
        ({"collect": "few"}, None, "QYOLO_FLOAT_MODELS=tiny=FILE.onnx names it"),
    ],
)
def test_what_is_missing_is_named(folder, tmp_path, settings, rebuild, words):
    settings = {name: tmp_path / value for name, value in settings.items()}
    with admin(folder, Changes(None, of_tiny(rebuild)), **settings) as live:
        assert words in assert_problem(live.client.post(PATH), 409, "refused")["detail"]
        refused = live.client.post(PATH, headers={"X-API-Key": CAMERA})
        assert_problem(refused, 403)
