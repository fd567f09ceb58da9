"""The simulated queue of bench/queueing.py against the closed forms of queueing theory."""

import random

import numpy as np
import pytest

from bench.queueing import simulate

SERVICE_S = 0.02
COUNT = 200_000
UNLIMITED = 10_000


def exponential(seed):
    """Service times with mean SERVICE_S."""
    chance = random.Random(seed)
    return [chance.expovariate(1 / SERVICE_S) for _ in range(50_000)]


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_with_constant_service_the_mean_wait_is_pollaczek_and_khinchines(load):
    queue = simulate(load / SERVICE_S, [SERVICE_S], UNLIMITED, COUNT, random.Random(1))
    assert np.mean(queue.waits) == pytest.approx(load * SERVICE_S / (2 * (1 - load)), rel=0.05)
    assert queue.refused == 0


def test_variable_service_makes_waits_longer():
    queue = simulate(0.6 / SERVICE_S, exponential(2), UNLIMITED, COUNT, random.Random(3))
    assert np.mean(queue.waits) == pytest.approx(0.6 * SERVICE_S / (1 - 0.6), rel=0.07)


@pytest.mark.parametrize("load", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("capacity", [1, 4])
def test_the_refused_share_is_that_of_a_queue_with_finite_capacity(load, capacity):
    """M/M/1/K; at a capacity of 1, Erlang's loss formula, for any distribution of service times."""
    queue = simulate(load / SERVICE_S, exponential(4), capacity, COUNT, random.Random(5))
    shares = [load**n for n in range(capacity + 1)]
    assert queue.refused == pytest.approx(shares[-1] / sum(shares), abs=0.01)
    if capacity == 1:
        assert set(queue.waits) == {0.0}
