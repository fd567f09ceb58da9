import pytest

from quantizer.evaluation.accuracy_gate import (
    AGREEMENT_DROP,
    AP_DROP,
    GateResult,
    choose_default,
    gate,
)
from service.vision.agreement import Agreement


def agreed(matched: float, difference: float = 0.0) -> Agreement:
    return Agreement(16, 100, 100, matched, 0.95, difference, difference)


@pytest.mark.parametrize(
    ("agreement", "accepted"),
    [
        (agreed(1.0), True),
        (agreed(0.95, 0.02), True),
        (agreed(1 - AGREEMENT_DROP + 0.001), True),
        (agreed(1 - AGREEMENT_DROP - 0.001), False),
        (agreed(1.0, AGREEMENT_DROP + 0.001), False),
        (agreed(0.0), False),
    ],
)
def test_without_annotations_the_boxes_must_agree(agreement, accepted):
    result = gate({"int8": agreement}, None, None)["int8"]
    assert (result.measure, result.limit) == ("agreement", AGREEMENT_DROP)
    assert result.accepted is accepted


@pytest.mark.parametrize(
    ("ap", "accepted"), [(0.35, True), (0.30, True), (0.2901, True), (0.2899, False), (0, False)]
)
def test_with_annotations_ap_decides_and_not_agreement(ap, accepted):
    aps = {"fp32": 0.30, "int8": ap}
    results = gate({"int8": agreed(0.0)}, aps, None)
    assert results.keys() == {"int8"}
    assert (results["int8"].measure, results["int8"].limit) == ("ap", AP_DROP)
    assert results["int8"].accepted is accepted


def test_max_drop_replaces_the_limit_of_either_measure():
    assert gate({"int8": agreed(0.5)}, None, 0.6)["int8"].accepted
    assert not gate({"int8": agreed(0.99)}, None, 0.005)["int8"].accepted
    aps = {"fp32": 0.30, "int8": 0.2}
    assert gate({}, aps, 0.11)["int8"].accepted


def test_the_reason_names_the_drop_and_the_limit():
    boxes, ap = GateResult.of("agreement", 0.5, 0.2), GateResult.of("ap", 0.1, 0.01)
    assert boxes.reason == "its boxes disagree with fp32's by 0.500, more than 0.2"
    assert "AP is below fp32's by 0.100" in ap.reason


@pytest.mark.parametrize(
    ("configured", "rejected", "default"),
    [
        ("auto", set(), "int8"),
        ("auto", {"int8"}, "bf16"),
        ("auto", {"int8", "bf16"}, "fp32"),
        ("fp32", set(), "fp32"),
        ("int8", {"int8"}, "bf16"),
    ],
)
def test_the_default_is_the_configured_or_the_fastest_accepted_variant(
    configured, rejected, default
):
    results = {
        name: GateResult.of("ap", 0.1 if name in rejected else 0.0, 0.05)
        for name in ("bf16", "int8")
    }
    assert choose_default(results, {"fp32": 9.0, "bf16": 6.0, "int8": 5.0}, configured) == default
