"""The hostile requests of the bench, a few hundred of them against a server in this process."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from service.lifecycle import FolderSource
from tests.service.live import serving, wait_until

BENCH = Path(__file__).parent.parent / "bench"
COUNT = 600


@pytest.fixture(scope="module")
def hostile():
    sys.path.insert(0, str(BENCH))  # its scripts import each other
    try:
        return import_module("hostile")
    finally:
        sys.path.remove(str(BENCH))


def test_no_hostile_request_breaks_the_server(hostile, tiny_folder, caplog):
    with serving(source=FolderSource(tiny_folder), capacity=32) as live:
        wait_until(lambda: live.client.get("/readyz").status_code == 200)
        seen = hostile.Seen()
        hostile.attack(live.port, hostile.cases(COUNT, 1, "yolov5"), seen)
    assert seen.faults == []
    assert seen.count == COUNT
    assert {200, 400, 404, 405, 406, 413, 415, 422, 431} <= set(seen.totals)
    assert not {500, 502, 503, 504} & set(seen.totals)
    assert "Traceback" not in caplog.text


def test_the_same_seed_gives_the_same_requests(hostile):
    one, other = (list(hostile.cases(50, 7, "yolov5")) for _ in range(2))
    assert one == other
    assert one != list(hostile.cases(50, 8, "yolov5"))
