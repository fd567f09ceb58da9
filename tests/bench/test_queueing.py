"""The simulated queue of bench/queueing.py against the closed forms of queueing theory."""

import math
import random

import numpy as np
import pytest

from bench.queueing import simulate

SERVICE_S = 0.02
COUNT = 200_000
UNLIMITED = float("inf")


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


@pytest.mark.parametrize("load", [0.5, 0.9, 2.0])
@pytest.mark.parametrize("bound", [0, 1, 4])
def test_the_refused_share_is_that_of_a_queue_with_bounded_wait(load, bound):
    """M/M/1 with deterministic patience (Barrer, 1957); without any wait, Erlang's loss formula."""
    queue = simulate(load / SERVICE_S, exponential(4), bound * SERVICE_S, COUNT, random.Random(5))
    tail = load * math.exp(-(1 - load) * bound)
    assert queue.refused == pytest.approx((1 - load) * tail / (1 - load * tail), abs=0.01)
    assert max(queue.waits) <= bound * SERVICE_S
