import pytest

from service.inference.timings import WATCHER, Stopwatch


def test_a_resumed_stopwatch_continues_the_timings_and_keeps_its_watcher():
    """A comparison makes one for each variant in a worker thread, which has no watcher."""
    seen = []
    token = WATCHER.set(lambda stage, seconds: seen.append((stage, seconds)))
    clock = Stopwatch()
    WATCHER.reset(token)
    clock.add("decode", 2.0)
    resumed = clock.resume({"queue": 1.0, "decode": 2.0, "total": 3.0})
    resumed.add("infer", 4.0)
    timings = resumed.read()
    assert timings["total"] == pytest.approx(3.0, abs=0.5)
    assert timings == {"queue": 1.0, "decode": 2.0, "infer": 4.0, "total": timings["total"]}
    assert seen == [("decode", 2.0), ("infer", 4.0)]
