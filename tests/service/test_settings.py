import pytest
from pydantic import ValidationError

from service.settings import Settings


def test_the_environment_sets_a_field(monkeypatch):
    monkeypatch.setenv("QYOLO_MAX_BYTES", "123")
    assert Settings().max_bytes == 123


def test_an_argument_overrides_the_environment(monkeypatch):
    monkeypatch.setenv("QYOLO_PORT", "1")
    assert Settings(port=2).port == 2


@pytest.mark.parametrize("field", ["conf", "capacity", "max_det"])
def test_a_value_out_of_range_is_refused(field):
    with pytest.raises(ValidationError, match=field):
        Settings.model_validate({field: -1})


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({}, 0.15),
        ({"max_wait_ms": 250}, 0.25),
        ({"capacity": 8}, None),
        ({"capacity": 8, "max_wait_ms": 250}, 0.25),
    ],
)
def test_the_wait_is_limited_unless_only_the_number_of_requests_is(limits, seconds):
    assert Settings.model_validate(limits).max_wait_s == seconds


def test_without_a_limit_of_its_own_a_slow_model_may_let_several_images_wait():
    assert Settings().waiting_images == 16
    assert Settings.model_validate({"max_wait_ms": 250}).waiting_images == 0
    assert Settings.model_validate({"capacity": 8}).waiting_images == 0
