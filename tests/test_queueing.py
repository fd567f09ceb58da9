"""The queue of bench/queueing.py beside what queueing theory knows in closed form."""

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def simulate():
    path = Path(__file__).parents[1] / "bench" / "queueing.py"
    spec = importlib.util.spec_from_file_location("queueing", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["queueing"] = module
    spec.loader.exec_module(module)
    return module.simulate


SERVICE_S = 0.02
COUNT = 200_000
ENDLESS = 10_000


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_with_constant_service_the_mean_wait_is_that_of_pollaczek_and_khinchine(simulate, load):
    found = simulate(load / SERVICE_S, [SERVICE_S], ENDLESS, COUNT, random.Random(1))
    assert np.mean(found.waits) == pytest.approx(load * SERVICE_S / (2 * (1 - load)), rel=0.05)
    assert found.refused == 0


def test_service_that_varies_makes_waits_longer(simulate):
    chance = random.Random(2)
    services = [chance.expovariate(1 / SERVICE_S) for _ in range(50_000)]
    found = simulate(0.6 / SERVICE_S, services, ENDLESS, COUNT, random.Random(3))
    assert np.mean(found.waits) == pytest.approx(0.6 * SERVICE_S / (1 - 0.6), rel=0.07)


@pytest.mark.parametrize("load", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("room", [1, 4])
def test_the_share_that_is_refused_is_that_of_a_queue_with_room_for_k(simulate, load, room):
    """M/M/1/K; with room for one alone, Erlang's loss formula, whatever the service's law."""
    chance = random.Random(4)
    services = [chance.expovariate(1 / SERVICE_S) for _ in range(50_000)]
    found = simulate(load / SERVICE_S, services, room, COUNT, random.Random(5))
    shares = [load**n for n in range(room + 1)]
    assert found.refused == pytest.approx(shares[-1] / sum(shares), abs=0.01)


def test_nobody_waits_in_a_house_for_one(simulate):
    found = simulate(100.0, [SERVICE_S], 1, 5_000, random.Random(6))
    assert set(found.waits) == {0.0}
