"""A few hundred requests of bench/robustness/hostile.py against a server in this process."""

from bench.robustness.hostile import Outcome, attack, cases
from tests.service.live import serving_folder

COUNT = 600


def test_no_hostile_request_breaks_the_server(tiny_folder, caplog):
    limits = {"capacity": 32, "max_inflight_bytes": 8 * 20 * 2**20}  # every case reaches a parser
    with serving_folder(tiny_folder, **limits) as live:
        outcome = Outcome()
        attack(live.port, cases(COUNT, 1, "yolov5"), outcome)
    assert outcome.failures == []
    assert outcome.count == COUNT
    assert {200, 400, 404, 405, 406, 413, 415, 422, 431} <= set(outcome.totals)
    assert not {500, 502, 503, 504} & set(outcome.totals)
    assert "Traceback" not in caplog.text


def test_a_seed_repeats_its_requests():
    first, second = (list(cases(50, 7, "yolov5")) for _ in range(2))
    assert first == second
    assert first != list(cases(50, 8, "yolov5"))
