"""Counts that single frames do not change."""

from hypothesis import given
from hypothesis import strategies as st

from qyolo.camera.occupancy import Change, Occupancy


def followed(occupancy: Occupancy, *frames: dict[str, int]) -> list[list[Change]]:
    """What changes with each frame; they are a second apart."""
    return [occupancy.update(frame, float(second)) for second, frame in enumerate(frames)]


PERSON, NOBODY = {"person": 1}, {}


def test_an_object_appears_with_the_second_frame_in_a_row():
    changes = followed(Occupancy(2, 10), PERSON, NOBODY, PERSON, PERSON, PERSON)
    assert changes == [[], [], [], [Change("person", 0, 1)], []]


def test_it_leaves_when_it_has_been_gone_for_the_cooldown():
    changes = followed(Occupancy(1, 3), PERSON, NOBODY, NOBODY, NOBODY, NOBODY)
    assert changes == [[Change("person", 0, 1)], [], [], [Change("person", 1, 0)], []]


def test_a_frame_that_misses_it_changes_nothing():
    changes = followed(Occupancy(1, 3), PERSON, NOBODY, NOBODY, PERSON, NOBODY, NOBODY, PERSON)
    assert [each for frame in changes for each in frame] == [Change("person", 0, 1)]


def test_the_count_falls_step_by_step():
    changes = followed(Occupancy(1, 2), {"car": 3}, {"car": 2}, {"car": 1}, {"car": 1}, {"car": 1})
    assert [(each.before, each.count) for frame in changes for each in frame] == [
        (0, 3),
        (3, 2),
        (2, 1),
    ]


def test_classes_are_counted_apart():
    (first,) = followed(Occupancy(1, 3), {"dog": 2, "car": 1})
    assert first == [Change("car", 0, 1), Change("dog", 0, 2)]


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_it_is_the_largest_confirmed_count_of_the_window(seen, confirm, cooldown):
    occupancy, count = Occupancy(confirm, cooldown), 0
    padded = [0] * (confirm - 1) + seen
    confirmed = [min(padded[i : i + confirm]) for i in range(len(seen))]
    for second, number in enumerate(seen):
        for change in occupancy.update({"person": number}, float(second)):
            assert change.before == count
            count = change.count
        assert count == max(confirmed[max(0, second - cooldown + 1) : second + 1])
