"""The search with known noises, and goals that count on their sum or do not."""

from collections.abc import Iterator, Sequence

import pytest

from quantizer.sensitivity.search import LEAST_COST, Found, search
from service.progress import Progress

LAYERS = tuple(f"layer{index}" for index in range(64))
SMALL = 1e-5
BUDGET = 0.01
EQUAL = dict.fromkeys(LAYERS, 1 / 64)


class Measured:
    """The noise of each layer, and their sum without those that are kept float; counts both."""

    def __init__(self, noises: dict[str, float]) -> None:
        self.noises = dict.fromkeys(LAYERS, SMALL) | noises
        self.measured: list[tuple[str, ...]] = []
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, groups: Sequence[Sequence[str]]) -> Iterator[float]:
        for group in groups:
            self.measured.append(tuple(group))
            yield sum(self.noises[layer] for layer in group)

    def after(self, kept_float: tuple[str, ...]) -> float:
        return sum(noise for layer, noise in self.noises.items() if layer not in kept_float)

    def accepts(self, kept_float: tuple[str, ...]) -> bool:
        self.asked.append(kept_float)
        return self.after(kept_float) <= BUDGET


def found(noise: Measured, costs: dict[str, float] = EQUAL) -> Found:
    return search(LAYERS, noise, BUDGET, costs, lambda _: None, noise.accepts)


def test_of_a_model_that_quantizes_well_no_layer_is_measured():
    noise = Measured({})
    assert found(noise) == Found(())
    assert (noise.measured, noise.asked) == ([], [()])


def test_the_noisy_layers_and_no_others_are_kept_float_most_noise_first():
    noise = Measured({"layer7": 0.5, "layer40": 0.2, "layer41": 0.003})
    result = found(noise)
    assert result.kept_float == ("layer7", "layer40")
    assert {each.layer: each.noise for each in result.layers} == pytest.approx(noise.noises)
    # Groups of neighbours, and then each layer of those two that are noisy.
    alone = [group for group in noise.measured if len(group) == 1 and group != LAYERS[-1:]]
    assert alone == [(f"layer{index}",) for index in (6, 7, 8, 39, 40, 41)]
    assert len(noise.measured) < len(LAYERS) / 2


def test_few_questions_find_how_many_layers_it_takes():
    noise = Measured(dict.fromkeys(LAYERS, 0.1))
    assert len(found(noise).kept_float) == 64
    assert len(noise.asked) <= 1 + 6  # all layers in int8, and a bisection of 64


def test_the_search_goes_by_what_is_accepted_not_by_the_noise():
    noise = Measured({"layer7": 0.5, "layer40": 0.2, "layer3": 0.1})

    def accepts(kept_float: tuple[str, ...]) -> bool:
        return "layer40" in kept_float

    result = search(LAYERS, noise, BUDGET, EQUAL, lambda _: None, accepts)
    assert result.kept_float == ("layer7", "layer40")


def test_of_two_equally_noisy_layers_the_cheap_one_is_kept_float():
    for dear, cheap in (("layer10", "layer50"), ("layer50", "layer10")):
        noise = Measured({"layer10": 0.01, "layer50": 0.0095})
        costs = dict.fromkeys(LAYERS, 0.001) | {dear: 0.02}
        assert found(noise, costs).kept_float[:1] == (cheap,)


def test_a_layer_without_cost_does_not_come_before_one_with_much_noise():
    """Its noise is a hundredth of the other's: that counts because a least cost is assumed."""
    noise = Measured({"layer10": 0.2, "layer50": 0.002})
    assert LEAST_COST > 0.01
    assert found(noise, EQUAL | {"layer50": 0.0}).kept_float == ("layer10",)


def test_thinly_spread_noise_keeps_no_layer_float():
    noise = Measured(dict.fromkeys(LAYERS, 0.0004))
    assert found(noise).kept_float == ()
    assert noise.after(()) > BUDGET


def test_a_layer_that_costs_more_than_it_is_worth_stays_int8():
    """A fifth of the time is worth a whole budget of noise, but not less."""
    noises = dict.fromkeys(LAYERS[:4], 0.008)
    dear = dict.fromkeys(LAYERS, 0.2)
    assert found(Measured(noises), dear).kept_float == ()
    assert found(Measured(noises), dear | {"layer2": 0.16}).kept_float == ("layer2",)
    assert found(Measured(noises | {"layer1": 0.011}), dear).kept_float == ("layer1",)


def test_where_the_goal_cannot_be_reached_what_is_worth_it_stays_float():
    noise = Measured(dict.fromkeys(LAYERS, 0.0004) | {"layer5": 0.3, "layer6": 0.2})
    result = found(noise)
    assert result.kept_float == ("layer5", "layer6")
    assert noise.after(result.kept_float) == pytest.approx(62 * 0.0004)


def test_the_layers_are_those_of_the_model_most_noise_first():
    result = found(Measured({"layer7": 0.5, "layer40": 0.2}))
    assert sorted(each.layer for each in result.layers) == sorted(LAYERS)
    noises = [each.noise for each in result.layers]
    assert noises == sorted(noises, reverse=True)
    assert [each.layer for each in result.layers[:2]] == ["layer7", "layer40"]


def test_layers_are_quantized_better_before_one_stays_float():
    noise, offered = Measured({"layer7": 0.5, "layer40": 0.2}), []

    def improve(noisiest: Sequence[str]) -> Sequence[str]:
        offered.append(tuple(noisiest))
        noise.noises["layer7"] = SMALL
        return ("layer7",)

    result = search(LAYERS, noise, BUDGET, EQUAL, lambda _: None, noise.accepts, improve)
    assert result.kept_float == ("layer40",)
    assert offered == [("layer7", "layer40")]  # and none of those with little noise
    assert {each.layer: each.noise for each in result.layers}["layer7"] == SMALL


def test_where_that_is_enough_no_layer_stays_float():
    noise = Measured({"layer7": 0.5})

    def improve(noisiest: Sequence[str]) -> Sequence[str]:
        noise.noises["layer7"] = SMALL
        return ("layer7",)

    result = search(LAYERS, noise, BUDGET, EQUAL, lambda _: None, noise.accepts, improve)
    assert result == Found(())


def test_without_layers_nothing_is_asked():
    noise = Measured({})
    assert search((), noise, BUDGET, {}, lambda _: None, noise.accepts) == Found(())
    assert noise.asked == []


def test_progress_counts_the_layers():
    steps: list[Progress] = []
    noise = Measured({"layer9": 1.0})
    search(LAYERS, noise, BUDGET, EQUAL, steps.append, noise.accepts)
    done = [step.done for step in steps]
    # Groups of three first, without that of the noisy layer, whose layers follow one by one.
    assert done == [*range(0, 61, 3), 61, 62, 63, 64]
    assert {step.total for step in steps} == {64}
