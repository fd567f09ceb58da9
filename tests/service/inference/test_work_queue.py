"""The predicted wait and the fair order, with a clock that the test sets."""

import pytest

from service.inference.work_queue import Place, WorkQueue

MAX_WAIT_S, READY = 0.1, 2


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(clock):
    return WorkQueue(MAX_WAIT_S, READY, clock)


def enter(queue: WorkQueue, client: str = "a", kind: str = "int8", images: int = 1) -> Place:
    """A request that waits for a thread."""
    place = queue.enter(client, kind, images)
    place.has_begun = False
    return place


def serve(queue: WorkQueue, clock: Clock, place: Place, seconds: float) -> None:
    """The request begins now and is done after `seconds`."""
    place.has_begun = True
    clock.now += seconds
    place.is_done = True
    queue.leave(place)


def measure(queue: WorkQueue, clock: Clock, seconds: float, kind: str = "int8") -> None:
    serve(queue, clock, enter(queue, kind=kind), seconds)


def wait(queue: WorkQueue, client: str | None = "a") -> float:
    return queue.predict(client).wait_s


def test_nothing_waits_in_an_empty_queue(queue, clock):
    assert wait(queue) == 0
    measure(queue, clock, 0.01)
    assert len(queue) == 0
    assert wait(queue) == 0


def test_the_wait_is_the_measured_time_of_what_is_before_less_what_has_passed(queue, clock):
    measure(queue, clock, 0.01)
    for count in range(1, 6):
        enter(queue)
        assert wait(queue) == pytest.approx(count * 0.01)
    clock.now += 0.004
    assert wait(queue) == pytest.approx(0.046)


def fits(queue: WorkQueue, client: str = "a") -> bool:
    wait_s, limit_s = queue.predict(client)
    return wait_s <= limit_s


def test_so_many_fit_as_are_done_within_the_limit_less_one_image(queue, clock):
    measure(queue, clock, 0.016)
    for _ in range(6):
        assert fits(queue)
        enter(queue)
    assert not fits(queue)
    clock.now += 0.013
    assert fits(queue)


@pytest.mark.parametrize("image_s", [None, 0.2, 5.0], ids=["not measured", "slow", "very slow"])
def test_two_may_always_be_before_another_one(queue, clock, image_s):
    if image_s is not None:
        measure(queue, clock, image_s)
    for _ in range(3):
        assert fits(queue)
        enter(queue)
    assert not fits(queue)


def test_without_a_limit_everything_fits(clock):
    queue = WorkQueue(None, READY, clock)
    for _ in range(100):
        enter(queue)
    clock.now += 100
    assert fits(queue)


def test_kinds_have_times_of_their_own_and_an_unknown_one_that_of_all(queue, clock):
    measure(queue, clock, 0.01, "int8")
    measure(queue, clock, 0.03, "fp32")
    assert queue.service_s("int8") == pytest.approx(0.01)
    assert queue.service_s("fp32") == pytest.approx(0.03)
    assert 0.01 <= queue.service_s("bf16") <= 0.03
    enter(queue, kind="fp32")
    enter(queue, kind="int8")
    clock.now += 0.02
    assert wait(queue) == pytest.approx(0.02)


def test_a_request_of_several_images_counts_with_those_it_has_left(queue, clock):
    measure(queue, clock, 0.01)
    first = enter(queue, images=3)
    assert wait(queue) == pytest.approx(0.03)
    later = enter(queue)
    serve(queue, clock, first, 0.01)
    second = queue.enter("a", "int8", 2, first.start)
    assert wait(queue) == pytest.approx(0.03)
    assert first.start == second.start < later.start


def test_under_load_the_time_of_an_image_is_the_interval_between_two_that_leave(queue, clock):
    """A pipeline: each takes 0.03 s, but one leaves every 0.01 s."""
    for _ in range(20):
        measure(queue, clock, 0.03)
    assert queue.service_s("int8") == pytest.approx(0.03)
    places = [enter(queue) for _ in range(60)]
    for place in places:
        serve(queue, clock, place, 0.01)
    assert queue.service_s("int8") == pytest.approx(0.01, rel=0.02)


def test_an_image_that_was_alone_may_only_lower_the_time(queue, clock):
    places = [enter(queue) for _ in range(20)]
    for place in places:
        serve(queue, clock, place, 0.01)
    for _ in range(20):
        measure(queue, clock, 0.03)
    assert queue.service_s("int8") == pytest.approx(0.01)
    for _ in range(60):
        measure(queue, clock, 0.005)
    assert queue.service_s("int8") == pytest.approx(0.005, rel=0.02)


@pytest.mark.parametrize(("first_s", "later_s"), [(1.0, 0.01), (0.001, 0.01)])
def test_a_wrong_first_measurement_is_soon_outvoted(queue, clock, first_s, later_s):
    measure(queue, clock, first_s)
    places = [enter(queue) for _ in range(50)]
    for place in places:
        serve(queue, clock, place, later_s)
    assert queue.service_s("int8") == pytest.approx(later_s, rel=0.5)


def test_the_prediction_grows_while_nothing_leaves(queue, clock):
    measure(queue, clock, 0.01)
    enter(queue)
    enter(queue)
    clock.now += 5
    assert wait(queue) == pytest.approx(5, rel=0.01)
    assert wait(queue, "another") == pytest.approx(5, rel=0.01)


def test_work_that_has_ended_is_not_waited_for_though_the_event_loop_is_late(queue, clock):
    measure(queue, clock, 0.01)
    first, second = enter(queue), enter(queue)
    first.has_begun, first.is_done, first.ended = True, True, clock.now + 0.01
    clock.now += 0.012
    assert wait(queue) == pytest.approx(0.008)
    clock.now += 0.5
    assert wait(queue) == pytest.approx(0.492)
    second.has_begun, second.is_done, second.ended = True, True, first.ended + 0.01
    assert wait(queue) == 0
    third = enter(queue)
    assert wait(queue) == pytest.approx(0.01)
    queue.leave(second)
    queue.leave(first)
    serve(queue, clock, third, 0.01)
    assert queue.service_s("int8") == pytest.approx(0.01, rel=0.5)


def test_work_that_is_dropped_or_fails_is_not_measured(queue, clock):
    measure(queue, clock, 0.01)
    dropped, failed, last = enter(queue), enter(queue), enter(queue)
    clock.now += 0.5
    queue.leave(dropped)
    assert wait(queue) == pytest.approx(0.5)  # nothing has moved
    failed.has_begun = True
    queue.leave(failed)
    assert wait(queue) == pytest.approx(0.01)
    serve(queue, clock, last, 0.01)
    assert queue.service_s("int8") == pytest.approx(0.01)


def test_a_client_waits_for_no_more_of_another_one_than_it_has_itself_and_one_image(queue, clock):
    measure(queue, clock, 0.01)
    for _ in range(10):
        enter(queue, "greedy")
    assert wait(queue, "greedy") == pytest.approx(0.1)
    assert wait(queue, "other") == pytest.approx(0.01)
    enter(queue, "other")
    assert wait(queue, "other") == pytest.approx(0.03)
    assert wait(queue, None) == pytest.approx(0.11)


def order(places: list[Place]) -> str:
    return "".join(each.client for each in sorted(places, key=lambda each: each.start))


def test_clients_take_turns_and_one_alone_is_served_in_its_order(queue, clock):
    measure(queue, clock, 0.01)
    alone = [enter(queue) for _ in range(5)]
    assert alone == sorted(alone, key=lambda each: each.start)
    assert order([*alone, *(enter(queue, "b") for _ in range(3))]) == "abababaa"


def test_who_comes_late_has_no_claim_to_the_past(queue, clock):
    """Else a client could starve the others after an hour of silence."""
    measure(queue, clock, 0.01)
    places = [enter(queue) for _ in range(50)]
    for place in places[:40]:
        serve(queue, clock, place, 0.01)
    late = [enter(queue, "b") for _ in range(10)]
    assert order([*places[40:], *late])[:10].count("b") in (5, 6)


def test_one_request_at_a_time_is_no_way_past_the_turns(queue, clock):
    """A client that sends its next request as soon as it has its answer gets half, not all."""
    measure(queue, clock, 0.01)
    waiting = [enter(queue) for _ in range(20)] + [enter(queue, "b")]
    served = ""
    for _ in range(20):
        place = min(waiting, key=lambda each: each.start)
        waiting.remove(place)
        serve(queue, clock, place, 0.01)
        served += place.client
        if place.client == "b":
            waiting.append(enter(queue, "b"))
    assert served.count("b") in (9, 10, 11)


def test_new_clients_all_the_time_cannot_starve_one_that_waits(queue, clock):
    measure(queue, clock, 0.01)
    enter(queue, "a")
    second = enter(queue, "a")
    for number in range(5000):
        place = enter(queue, f"client {number}")
        if place.start > second.start:
            break
        serve(queue, clock, place, 0.01)
    assert number < 5
