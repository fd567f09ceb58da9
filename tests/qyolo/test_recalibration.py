"""`qyolo recalibrate` against a running `qyolo up`."""

import json

from PIL import Image

from tests.qyolo.commands import inline, running

ADMIN = "secret-of-the-admin"


def test_up_is_calibrated_on_what_it_has_collected(tiny_build, cache, photos, tmp_path):
    for index, path in enumerate(sorted(photos.iterdir())):
        Image.open(path).convert("RGB").save(tmp_path / f"served-{index:05d}.jpg")
    known = {"QYOLO_CACHE_DIR": cache, "QYOLO_API_KEYS": f"admin:{ADMIN}"}
    with running("up", *tiny_build, "--collect", tmp_path, **known) as server:
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
