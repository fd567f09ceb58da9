"""The search with known noises: some add up over the layers, some do not."""

import pytest

from quantizer.sensitivity.search import LEAST_COST, Sensitivity, search
from service.progress import Progress

LAYERS = tuple(f"layer{index}" for index in range(64))
SMALL = 1e-5


class Measured:
    """The sum of the noises of the quantized layers; counts the executions."""

    def __init__(self, noises: dict[str, float]) -> None:
        self.noises = dict.fromkeys(LAYERS, SMALL) | noises
        self.executions = 0

    def __call__(self, layers: frozenset[str]) -> float:
        self.executions += 1
        return sum(self.noises[layer] for layer in layers)


def found(noise: Measured, budget: float, **costs: float) -> Sensitivity:
    return search(LAYERS, noise, budget, costs, lambda _: None)


def test_a_model_that_quantizes_well_costs_one_execution():
    noise = Measured({})
    result = found(noise, 0.01)
    assert result.kept_float == ()
    assert (noise.executions, result.executions) == (1, 1)
    assert result.before == result.after == pytest.approx(64 * SMALL)


def test_the_noisy_layers_and_no_others_are_kept_float_most_noise_first():
    noise = Measured({"layer7": 0.5, "layer40": 0.2, "layer41": 0.003})
    result = found(noise, 0.01)
    assert result.kept_float == ("layer7", "layer40")
    assert result.before == pytest.approx(0.7036, abs=1e-3)
    assert result.after == pytest.approx(0.003 + 61 * SMALL)


def test_few_executions_find_one_noisy_layer_of_many():
    noise = Measured({"layer23": 0.5})
    assert found(noise, 0.01).kept_float == ("layer23",)
    assert noise.executions <= 2 + 2 * 6  # all, all but one, and two halves for each of six levels


def test_the_search_continues_where_noises_do_not_add_up():
    """Two layers hide each other: both in int8 make no more noise than one of them."""

    def noise(layers: frozenset[str]) -> float:
        return 0.5 * bool(layers & {"layer3", "layer50"}) + SMALL * len(layers)

    assert set(search(LAYERS, noise, 0.01, {}, lambda _: None).kept_float) == {"layer3", "layer50"}


def test_of_two_equally_noisy_layers_the_cheap_one_is_kept_float():
    noise = Measured({"layer10": 0.01, "layer50": 0.01})
    costs = dict.fromkeys(LAYERS, 0.001) | {"layer10": 0.02}
    assert found(noise, 0.0107, **costs).kept_float == ("layer50",)
    costs = dict.fromkeys(LAYERS, 0.001) | {"layer50": 0.02}
    assert found(noise, 0.0107, **costs).kept_float == ("layer10",)


def test_a_layer_without_cost_does_not_come_before_one_with_much_noise():
    """Its noise is a hundredth of the other's: that counts because a least cost is assumed."""
    noise = Measured({"layer10": 0.2, "layer50": 0.002})
    costs = dict.fromkeys(LAYERS, 0.01) | {"layer50": -0.005}
    assert LEAST_COST > 0.01
    assert found(noise, 0.01, **costs).kept_float == ("layer10",)


def test_thinly_spread_noise_keeps_no_layer_float():
    noise = Measured(dict.fromkeys(LAYERS, 0.0004))
    result = found(noise, 0.01)
    assert result.kept_float == ()
    assert result.after == result.before > result.budget


def test_a_layer_that_costs_more_than_it_is_worth_stays_int8():
    """Four hundredths of the time are worth a whole budget of noise, but not less."""
    noises = dict.fromkeys(LAYERS[:4], 0.008)
    dear = dict.fromkeys(LAYERS, 0.04)
    assert found(Measured(noises), 0.01, **dear).kept_float == ()
    assert len(found(Measured(noises), 0.01, **(dear | {"layer2": 0.005})).kept_float) == 1
    assert found(Measured(noises | {"layer1": 0.011}), 0.01, **dear).kept_float == ("layer1",)


def test_where_the_budget_cannot_be_met_the_result_exceeds_it():
    noise = Measured(dict.fromkeys(LAYERS, 0.0004) | {"layer5": 0.3})
    result = found(noise, 0.01)
    assert result.kept_float == ("layer5",)
    assert result.budget < result.after == pytest.approx(63 * 0.0004)


def test_the_blocks_partition_the_layers_worst_first():
    result = found(Measured({"layer7": 0.5, "layer40": 0.2}), 0.01)
    assert sorted(layer for block in result.blocks for layer in block.layers) == sorted(LAYERS)
    noises = [block.noise for block in result.blocks]
    assert noises == sorted(noises, reverse=True)
    assert all(len(block.layers) == 1 for block in result.blocks if block.kept_float)


def test_without_layers_there_is_no_noise():
    result = search((), Measured({}), 0.01, {}, lambda _: None)
    assert (result.before, result.after, result.blocks) == (0, 0, ())


def test_progress_counts_the_executions():
    steps: list[Progress] = []
    result = search(LAYERS, Measured({"layer9": 1.0}), 0.01, {}, steps.append)
    assert [step.done for step in steps] == list(range(1, result.executions + 1))


def test_the_search_ends_where_the_caller_accepts():
    noise = Measured({"layer7": 0.5, "layer40": 0.2, "layer3": 0.1})
    asked: list[tuple[str, ...]] = []

    def accepts(kept_float: tuple[str, ...]) -> bool:
        asked.append(kept_float)
        return "layer40" in kept_float

    result = search(LAYERS, noise, 0.01, {}, lambda _: None, accepts)
    assert asked == [(), ("layer7",), ("layer7", "layer40")]
    assert set(result.kept_float) == {"layer7", "layer40"}
    assert result.after == pytest.approx(0.1 + 61 * SMALL)


def test_the_caller_is_asked_ever_less_often():
    asked: list[int] = []
    noise = Measured(dict.fromkeys(LAYERS, 0.1))
    search(LAYERS, noise, 0.01, {}, lambda _: None, lambda kept: bool(asked.append(len(kept))))
    assert asked[:6] == [0, 1, 2, 3, 5, 8]
    assert len(asked) < 15
