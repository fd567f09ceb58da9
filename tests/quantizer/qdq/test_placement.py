"""Golden plans are in tests/golden; QYOLO_UPDATE_GOLDEN=1 rewrites them, git diff is the review."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quantizer.model.decode_tail import decode_tail
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from quantizer.qdq.format import TENSORRT
from quantizer.qdq.placement import Placement, asked_for, plan_placement
from tests.shared import YOLOV5N, YOLOX_NANO, needs_shared
from tests.tiny_models import SIZE, TINY, Sketch, save_tiny

GOLDEN = Path(__file__).parents[2] / "golden"


def graph_of(name: str, folder: Path) -> Graph:
    return read_float_model(save_tiny(folder, name), SIZE).graph


def planned(build: Callable[[Sketch], str], *keep_float: str) -> Placement:
    """The plan of a graph that ends in one convolution, named `last`."""
    s = Sketch()
    x = build(s)
    graph = Graph.of(s.model(s.conv("last", x, (8, 5)), rank=4))
    return plan_placement(graph, asked_for(graph, keep_float))


def sites(placement: Placement) -> dict[str, str]:
    return {site.tensor: site.group for site in placement.activations}


def reasons(placement: Placement) -> dict[str, str]:
    return {kept.layer: kept.reason for kept in placement.kept_float}


def check_golden(name: str, text: str) -> None:
    golden = GOLDEN / f"{name}.placement.txt"
    if os.environ.get("QYOLO_UPDATE_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", TINY)
def test_the_plan_is_the_reviewed_one(name, tmp_path):
    check_golden(name, plan_placement(graph_of(name, tmp_path)).as_text())


@needs_shared
@pytest.mark.parametrize("path", [YOLOV5N, YOLOX_NANO], ids=lambda path: path.stem)
def test_the_plan_of_a_real_model_is_the_reviewed_one(path):
    check_golden(path.stem, plan_placement(read_float_model(path, 640).graph).as_text())


@pytest.mark.parametrize("name", TINY)
def test_nothing_in_the_decode_tail_nor_what_it_reads_is_quantized(name, tmp_path):
    graph = graph_of(name, tmp_path)
    placement = plan_placement(graph)
    tail = decode_tail(graph)
    assert tail
    touched = {tensor for node in tail for tensor in (*node.input, *node.output)}
    assert not touched & set(sites(placement))
    assert not {node.name for node in tail} & set(placement.layers)


@pytest.mark.parametrize("name", TINY)
def test_every_convolution_is_decided_once(name, tmp_path):
    graph = graph_of(name, tmp_path)
    placement = plan_placement(graph)
    decided = [site.layer for site in placement.weights]
    decided += [kept.layer for kept in placement.kept_float]
    convs = [node.name for node in graph.nodes if node.op_type == "Conv"]
    assert sorted(decided) == sorted(convs)


@pytest.mark.parametrize("name", TINY)
def test_a_group_is_named_by_its_first_member(name, tmp_path):
    groups = sites(plan_placement(graph_of(name, tmp_path)))
    order = list(groups)
    assert all(order.index(group) <= order.index(tensor) for tensor, group in groups.items())
    assert all(groups[group] == group for group in groups.values())


def test_the_expectation_over_box_distances_is_decode(tmp_path):
    placement = plan_placement(graph_of("yolov8", tmp_path))
    assert reasons(placement)["dfl"] == "decode"
    assert {"box8", "cls8"} <= set(placement.layers)


def test_no_convolution_is_float_for_its_kind(tmp_path):
    placement = plan_placement(graph_of("yolox", tmp_path))
    assert {"stem", "dark.dw"} <= set(placement.layers)
    assert placement.kept_float == ()
    assert sites(placement)["images"] == "images"  # through the Focus that rearranges it


def test_the_caller_names_layers_to_leave_float_and_says_why(tmp_path):
    placement = plan_placement(graph_of("yolov5", tmp_path), {"stem": "it hurts", "absent": ""})
    assert reasons(placement) == {"stem": "it hurts"}
    assert "stem" not in placement.layers
    assert "images" not in placement.tensors  # nobody else reads it


def test_computed_weights_stay_float():
    def build(s: Sketch) -> str:
        weight = s.constant("w", np.ones((8, 3, 1, 1)), np.float32)
        scaled = s.times("scaled", weight, 2)
        return s.silu("dynamic", s.node("Conv", "dynamic", "images", scaled))

    assert reasons(planned(build))["dynamic"] == "computed weights"


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("stem", {"stem"}),
        ("c3.m.*", {"c3.m.cv1", "c3.m.cv2"}),
        ("p?", {"p8"}),
        ("n[0-9]*.cv", {"n8.cv", "n16.cv"}),
        ("detect*", {"detect8", "detect16", "detect32"}),
        ("nothing", set()),
    ],
)
def test_what_the_user_names_stays_float(pattern, kept, tmp_path):
    graph = graph_of("yolov5", tmp_path)
    placement = plan_placement(graph, asked_for(graph, (pattern,)))
    asked = {kept.layer for kept in placement.kept_float if pattern in kept.reason}
    assert asked == kept
    assert not asked & {site.layer for site in placement.weights}


def test_keeping_everything_float_leaves_nothing_to_quantize(tmp_path):
    graph = graph_of("yolov5", tmp_path)
    placement = plan_placement(graph, asked_for(graph, ("*",)))
    assert (placement.weights, placement.activations) == ((), ())


def test_the_inputs_of_a_concat_share_one_range():
    def build(s: Sketch) -> str:
        parts = [s.conv_silu(name, "images", (3, 8)) for name in "abc"]
        return s.conv_silu("d", s.concat("cat", *parts), (24, 8))

    shared = {f"{name}.act.y": "a.act.y" for name in "abc"}
    last = {"d.act.y": "d.act.y"}
    assert sites(planned(build)) == {"images": "images"} | shared | last


def test_concats_that_have_an_input_in_common_share_one_range():
    def build(s: Sketch) -> str:
        a, b, c = (s.conv_silu(name, "images", (3, 8)) for name in "abc")
        first = s.conv_silu("d", s.concat("cat1", a, b), (16, 8))
        second = s.conv_silu("e", s.concat("cat2", b, c), (16, 8))
        return s.node("Add", "add", first, second)

    groups = sites(planned(build))
    assert {groups["a.act.y"], groups["b.act.y"], groups["c.act.y"]} == {"a.act.y"}


def test_a_concat_with_a_constant_is_quantized_as_a_whole():
    def build(s: Sketch) -> str:
        position = s.constant("position", np.zeros((1, 1, 64, 64)), np.float32)
        x = s.concat("cat", s.conv_silu("a", "images", (3, 8)), position)
        return s.conv_silu("b", x, (9, 8))

    assert list(sites(planned(build))) == ["images", "cat.y", "b.act.y"]


MOVED: dict[str, Callable[[Sketch, str], str]] = {
    "MaxPool": lambda s, x: s.node("MaxPool", "moved", x, kernel_shape=[2, 2], strides=[2, 2]),
    "nearest Resize": lambda s, x: s.upsample("moved", x),
    "Slice": lambda s, x: s.take("moved", x, 0, 8, 1),
    "Split": lambda s, x: s.split("moved", x, [8], 1)[0],
    "Concat": lambda s, x: s.concat("moved", x),
}
COMPUTED: dict[str, Callable[[Sketch, str], str]] = {
    "linear Resize": lambda s, x: s.node(
        "Resize", "moved", x, "", s.constant("scales", [1, 1, 2, 2], np.float32), mode="linear"
    ),
    "AveragePool": lambda s, x: s.node("AveragePool", "moved", x, kernel_shape=[2, 2]),
    "Add": lambda s, x: s.node("Add", "moved", x, x),
    "Pad": lambda s, x: s.node("Pad", "moved", x, s.constant("pads", [0, 0, 1, 1] * 2)),
}


def between(move: Callable[[Sketch, str], str]) -> Placement:
    return planned(lambda s: s.conv_silu("b", move(s, s.conv_silu("a", "images", (3, 8))), (8, 8)))


@pytest.mark.parametrize("move", MOVED.values(), ids=MOVED)
def test_the_pair_moves_up_through(move):
    assert list(sites(between(move))) == ["images", "a.act.y", "b.act.y"]


@pytest.mark.parametrize("move", COMPUTED.values(), ids=COMPUTED)
def test_the_pair_stays_below(move):
    assert list(sites(between(move))) == ["images", "moved.y", "b.act.y"]


def test_an_input_of_several_convolutions_has_one_pair():
    def build(s: Sketch) -> str:
        x = s.conv_silu("a", "images", (3, 8))
        return s.node("Add", "add", s.conv_silu("b", x, (8, 8)), s.conv_silu("c", x, (8, 8)))

    assert list(sites(planned(build))) == ["images", "a.act.y", "add.y"]


def test_the_text_tells_decisions_in_the_order_of_the_graph():
    placement = planned(lambda s: s.conv_silu("b", s.conv_silu("a", "images", (3, 8)), (8, 8)))
    assert placement.as_text() == (
        "int8  a\nint8  b\nint8  last\nq/dq  images\nq/dq  a.act.y\nq/dq  b.act.y\n"
    )


@pytest.mark.parametrize("name", TINY)
def test_the_plan_for_tensorrt_is_the_reviewed_one(name, tmp_path):
    plan = plan_placement(graph_of(name, tmp_path), dialect=TENSORRT)
    check_golden(f"{name}.tensorrt", plan.as_text())


@needs_shared
@pytest.mark.parametrize("path", [YOLOV5N, YOLOX_NANO], ids=lambda path: path.stem)
def test_the_plan_for_tensorrt_of_a_real_model_is_the_reviewed_one(path):
    plan = plan_placement(read_float_model(path, 640).graph, dialect=TENSORRT)
    check_golden(f"{path.stem}.tensorrt", plan.as_text())


def residual(main_is_int8: bool = True) -> Placement:
    """A sum of the stem's negative, which no convolution reads, and of one of the stem."""
    s = Sketch()
    stem = s.conv_silu("stem", "images", (3, 8), 3, 2)
    skip = s.node("Neg", "skip", stem)
    main = s.conv_silu("main", stem, (8, 8), 3)
    total = s.node("Add", "total", skip, main)
    graph = Graph.of(s.model(s.conv("last", total, (8, 5)), rank=4))
    floats = {} if main_is_int8 else {"main": "it hurts"}
    return plan_placement(graph, floats, TENSORRT)


def test_tensorrt_gets_the_other_branch_of_a_sum_in_int8():
    assert "skip.y" in sites(residual())


def test_a_sum_that_no_int8_convolution_leads_into_leaves_its_branches_float():
    assert "skip.y" not in sites(residual(main_is_int8=False))


def test_pairs_are_repeated_behind_movers_of_one_scale_only():
    s = Sketch()
    left = s.conv_silu("left", "images", (3, 8), 3, 2)
    right = s.conv_silu("right", "images", (3, 8), 3, 2)
    pooled = s.node("MaxPool", "pool", left, kernel_shape=[3, 3], pads=[1] * 4)
    both = s.node("Concat", "both", pooled, right, axis=1)
    graph = Graph.of(s.model(s.conv("last", both, (16, 5)), rank=4))
    placement = plan_placement(graph, dialect=TENSORRT)
    again = {site.tensor: site.group for site in placement.echoes}
    assert again == {"pool.y": left, "both.y": left}
    assert plan_placement(graph).echoes == ()
