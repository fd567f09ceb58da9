"""`qyolo recalibrate` against a running server."""

import json

from PIL import Image

from service.folder_cache import KEY_LENGTH
from tests.qyolo.commands import inline, running

ADMIN = "secret-of-the-admin"


def collect(photos, folder):
    """As the server keeps them."""
    folder.mkdir(parents=True)
    for index, path in enumerate(sorted(photos.iterdir())):
        Image.open(path).convert("RGB").save(folder / f"served-{index:05d}.jpg")
    return folder


def test_up_is_calibrated_on_what_it_has_collected(tiny_build, cache, photos, tmp_path):
    collected = collect(photos, tmp_path / "images")
    known = {"QYOLO_CACHE_DIR": cache, "QYOLO_API_KEYS": f"admin:{ADMIN}"}
    with running("up", *tiny_build, "--collect", collected, **known) as server:
        server.wait_until_ready()
        asked = {"QYOLO_SERVER": server.url, "QYOLO_API_KEY": ADMIN}
        offered = json.loads(inline("recalibrate", **asked).out)
        assert offered["switched"] is False
        assert offered["images"] == 16
        assert offered["new_with_fp32"] > 0
        ran = inline("recalibrate", "--switch", **asked)
        assert json.loads(ran.out)["switched"] is True
        assert json.loads(ran.out)["created"] == offered["created"]
        assert server.stop() == 0
    assert "Traceback" not in server.err


def test_a_served_folder_is_calibrated_with_its_float_model(tiny_build, cache, photos, tmp_path):
    model, home = tiny_build[0], tmp_path / "images"
    collect(photos, home / "boats")
    collect(photos, home / "cars")
    (built,) = (path for path in cache.iterdir() if len(path.name) == KEY_LENGTH)
    (tmp_path / "other.onnx").write_bytes(b"another model")
    known = {
        "QYOLO_CACHE_DIR": cache,
        "QYOLO_API_KEYS": f"admin:{ADMIN}",
        "QYOLO_FLOAT_MODELS": f"boats={model}, cars={tmp_path / 'other.onnx'}",
    }
    folders = (built, f"boats={built}", f"cars={built}")
    with running("serve", *folders, "--collect", home, **known) as server:
        server.wait_until_ready()
        asked = {"QYOLO_SERVER": server.url, "QYOLO_API_KEY": ADMIN}
        ran = inline("recalibrate", "boats", "--switch", **asked)
        change = json.loads(ran.out)
        assert (change["model"], change["switched"], change["images"]) == ("boats", True, 16)
        report = server.get("/v1/report?model=boats", ADMIN).json()
        first = server.get("/v1/report", ADMIN).json()
        for part in ("model", "options"):
            assert report[part] == first[part]
        assert report["calibration"] != first["calibration"]
        refused = inline("recalibrate", "cars", **asked)
        assert refused.code == 2
        assert "other.onnx is not the file that cars was built of" in refused.err
        unknown = inline("recalibrate", **asked)
        assert "QYOLO_FLOAT_MODELS=yolov5=FILE.onnx" in unknown.err
        assert server.stop() == 0
    assert "Traceback" not in server.err


def test_a_float_model_that_is_missing_ends_the_start(tmp_path):
    ran = inline("serve", tmp_path, QYOLO_FLOAT_MODELS=tmp_path / "a.onnx")
    assert (ran.code, ran.out) == (2, "")
    assert "no such file" in ran.err
