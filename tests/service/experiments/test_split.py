"""The split gives each variant its share, each client always the same one, and moves few."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.experiments.split import BadExperiment, Experiment, Sample, Split, read_experiment

CLIENTS = [f"camera-{number}" for number in range(800)]

weights = st.floats(0.01, 100)
names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
splits = st.dictionaries(names, weights, min_size=1, max_size=4).map(Split)


def chosen(split: Split) -> list[str]:
    return [split.choose(client) for client in CLIENTS]


@settings(max_examples=60)
@given(splits)
def test_each_variant_gets_its_share_of_the_clients(split):
    given_to = chosen(split)
    for name in split.weights:
        share = split.share(name)
        tolerance = 5 * math.sqrt(share * (1 - share) / len(CLIENTS)) + 1 / len(CLIENTS)
        assert abs(given_to.count(name) / len(CLIENTS) - share) < tolerance


@given(splits, st.floats(1e-6, 1e6), st.text())
def test_only_the_proportions_and_the_client_matter(split, factor, client):
    scaled = Split({name: weight * factor for name, weight in reversed(split.weights.items())})
    assert split.choose(client) == scaled.choose(client)
    assert split.choose(client) in split.weights


@settings(max_examples=60)
@given(splits, names, st.floats(1.01, 50), weights)
def test_a_growing_weight_moves_clients_only_to_its_variant(split, name, factor, fresh):
    grown = split.weights.get(name, fresh / factor) * factor
    after = Split({**split.weights, name: grown})
    moved = [new for old, new in zip(chosen(split), chosen(after), strict=True) if old != new]
    assert set(moved) <= {name}
    gained = after.share(name) - split.share(name)  # at least so many must move
    tolerance = 5 * math.sqrt(gained * (1 - gained) / len(CLIENTS)) + 1 / len(CLIENTS)
    assert abs(len(moved) / len(CLIENTS) - gained) < tolerance


def test_the_hash_is_the_documented_one_in_every_release():
    split = Split({"int8": 0.9, "fp32": 0.1})
    few = [number for number in range(60) if split.choose(f"camera-{number}") == "fp32"]
    assert few == [3, 13, 18, 21, 49, 50]


def test_a_split_and_a_shadow_are_parsed():
    experiment = read_experiment(" int8:0.9, fp32 : 0.1", "fp32:0.05")
    assert experiment.split == Split({"int8": 0.9, "fp32": 0.1})
    assert experiment.shadow == Sample("fp32", 0.05)
    assert [experiment.share(name, "int8") for name in ("int8", "fp32", "bf16")] == [0.9, 0.1, 0]
    assert [experiment.shadow_share(name) for name in ("int8", "fp32")] == [0, 0.05]


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_blank_settings_are_no_experiment(blank):
    experiment = read_experiment(blank, blank)
    assert experiment == Experiment()
    assert [experiment.share(name, "int8") for name in ("int8", "fp32")] == [1, 0]
    assert experiment.shadow_share("int8") == 0
    experiment.check([])


@pytest.mark.parametrize(
    "ab",
    ["int8", "int8:", ":1", "int8:0", "int8:-1", "int8:nan", "int8:inf", "int8:1e999", "int8:x",
     "int8:1,", ",", "int8:1:2", "int8=1"],
)  # fmt: skip
def test_a_malformed_split_is_refused_with_an_example(ab):
    with pytest.raises(BadExperiment, match=r"A/B split: .* as in int8:0\.9,fp32:0\.1"):
        read_experiment(ab, None)


def test_a_variant_has_one_weight():
    with pytest.raises(BadExperiment, match="the A/B split names 'int8' twice"):
        read_experiment("int8:1,int8:2", None)


@pytest.mark.parametrize("shadow", ["fp32", "fp32:0", "fp32:1.1", "fp32:nan", "fp32:.1,int8:.1"])
def test_a_malformed_shadow_is_refused_with_an_example(shadow):
    with pytest.raises(BadExperiment, match=r"shadow: .* as in fp32:0\.05"):
        read_experiment(None, shadow)


@pytest.mark.parametrize(
    ("ab", "shadow", "where"),
    [("int8:1,fp16:1", "fp32:1", "A/B split"), (None, "fp16:1", "shadow")],
)
def test_an_unknown_variant_is_named(ab, shadow, where):
    experiment = read_experiment(ab, shadow)
    experiment.check(["fp16", "fp32", "int8"])
    message = f"the {where} names no variant of this model: 'fp16'; there are: fp32, int8"
    with pytest.raises(BadExperiment, match=message):
        experiment.check(["fp32", "int8"])
