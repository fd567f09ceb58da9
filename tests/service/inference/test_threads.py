import gc
import threading
import time
import weakref

import pytest

from service.inference.threads import Threads
from tests.waiting import WAIT_LIMIT_S, wait_until


class Value:
    """Can be referred to weakly."""


@pytest.fixture
def threads():
    running = Threads(2, "test")
    yield running
    assert running.shutdown(WAIT_LIMIT_S)


def test_work_has_its_result_or_its_error_whatever_its_type(threads):
    assert threads.submit(lambda: 7).result(WAIT_LIMIT_S) == 7
    for error in (ValueError(), SystemExit(), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        assert threads.submit(fail).exception(WAIT_LIMIT_S) is error
    assert threads.submit(threading.get_ident).result(WAIT_LIMIT_S) != threading.get_ident()


def test_a_thread_is_started_only_when_no_other_is_idle():
    threads = Threads(8, "lazy")
    names = {threads.submit(threading.get_ident).result(WAIT_LIMIT_S) for _ in range(100)}
    assert len(names) == 1
    barrier = threading.Barrier(8)
    jobs = [threads.submit(lambda: barrier.wait(WAIT_LIMIT_S)) for _ in range(8)]
    assert {job.result(WAIT_LIMIT_S) for job in jobs} == set(range(8))
    assert threads.shutdown(WAIT_LIMIT_S)


def test_no_thread_keeps_what_its_last_job_used(threads):
    gc.disable()
    try:
        for fails in (False, True):
            value = Value()
            seen = weakref.ref(value)

            def work(value: Value = value, fails: bool = fails) -> None:
                if fails:
                    raise ValueError(value)

            threads.submit(work).exception(WAIT_LIMIT_S)
            del value, work
            wait_until(lambda seen=seen: seen() is None)
    finally:
        gc.enable()


def test_an_abandoned_thread_is_replaced_and_its_job_ends_with_the_error(threads):
    gate, ids, error = threading.Event(), [], RuntimeError("stuck")

    def stuck() -> None:
        ids.append(threading.get_ident())
        gate.wait(WAIT_LIMIT_S)

    jobs = [threads.submit(stuck) for _ in range(2)]
    wait_until(lambda: len(ids) == 2)
    waiting = threads.submit(lambda: 7)
    for thread in ids:
        threads.abandon(thread, error)
        threads.abandon(thread, error)
    assert [job.exception(WAIT_LIMIT_S) for job in jobs] == [error, error]
    assert waiting.result(WAIT_LIMIT_S) == 7
    gate.set()


def test_jobs_that_wait_are_done_in_their_order_and_those_without_one_at_once():
    threads, gate, done = Threads(1, "test"), threading.Event(), []
    threads.submit(lambda: gate.wait(WAIT_LIMIT_S))
    for name, order in {"c": 2.0, "a": 1.0, "d": 3.0, "b": 1.0}.items():
        threads.submit(lambda name=name: done.append(name), order)
    threads.submit(lambda: done.append("first"))
    gate.set()
    assert threads.shutdown(WAIT_LIMIT_S)
    assert done == ["first", "a", "b", "c", "d"]


def test_shutdown_does_what_is_queued_and_does_not_wait_beyond_its_time():
    threads, gate, done = Threads(1, "test"), threading.Event(), []
    threads.submit(lambda: gate.wait(WAIT_LIMIT_S))
    threads.submit(lambda: done.append(1))
    began = time.monotonic()
    assert not threads.shutdown(0.1)
    assert time.monotonic() - began < 1
    with pytest.raises(RuntimeError):
        threads.submit(lambda: None)
    gate.set()
    assert threads.shutdown()
    assert done == [1]
