"""Ranges whose bounds are far off, which the search for a better bound must find."""

import dataclasses

import pytest

from quantizer.qdq.placement import Placement, plan_placement
from quantizer.sensitivity.refinement import GAIN, MOST, find_better_bounds
from quantizer.sensitivity.simulation import Simulation
from service.progress import Progress
from tests.quantizer.sensitivity.simulations import simulation_of

IMAGES = 4


def with_bound(simulation: Simulation, placement: Placement, group: str, factor: float):
    """The simulation with the upper bound of one range multiplied."""
    scaled = simulation.ranges.scaled({placement.groups[group]: factor})
    return dataclasses.replace(simulation, ranges=scaled)


def noisiest_first(placement: Placement, group: str) -> list[str]:
    """All layers, first those that read the group."""
    members = set(placement.groups[group])
    return sorted(
        placement.layers,
        key=lambda layer: (
            not members.intersection(
                *(site.reads for site in placement.weights if site.layer == layer)
            )
        ),
    )


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulation_of("yolov5")


@pytest.fixture(scope="module")
def placement(simulation) -> Placement:
    return plan_placement(simulation.graph)


@pytest.mark.parametrize(("wrong", "least", "most"), [(8.0, 0.5, 0.7), (0.4, 1.2, 1.7)])
@pytest.mark.parametrize("group", ["stem.act.y", "c3.cv2.act.y"])
def test_a_bound_that_is_far_too_high_or_too_low_is_moved(
    simulation, placement, group, wrong, least, most
):
    sabotaged = with_bound(simulation, placement, group, wrong)
    layers = noisiest_first(placement, group)
    factors = find_better_bounds(sabotaged, placement, layers, IMAGES, lambda _: None)
    tensors = placement.groups[group]
    assert least <= factors[tensors] <= most
    alone = placement.only(group)
    better = dataclasses.replace(sabotaged, ranges=sabotaged.ranges.scaled(factors))
    assert better.loss(alone) < GAIN * sabotaged.loss(alone)


def test_the_range_of_the_image_is_never_tried_nor_more_ranges_than_the_most(simulation, placement):
    steps: list[Progress] = []
    factors = find_better_bounds(simulation, placement, placement.layers, IMAGES, steps.append)
    assert ("images",) not in factors
    assert [step.done for step in steps] == list(range(MOST + 1))
    assert {(step.phase, step.total) for step in steps} == {("refine", MOST)}


def test_what_is_not_executed_again_changes_no_loss(simulation, placement):
    groups = [group for group in placement.groups if group != "images"]
    alone = [placement.only(group) for group in groups]
    few = dataclasses.replace(simulation, samples=simulation.samples[:IMAGES])
    resumed = simulation.resuming_for(alone, IMAGES)
    assert [resumed.loss(each) for each in alone] == pytest.approx([few.loss(p) for p in alone])
