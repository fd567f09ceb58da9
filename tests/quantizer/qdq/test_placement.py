"""Reviewed plans lie in tests/golden; QYOLO_UPDATE_GOLDEN=1 rewrites them for a git diff."""

import os
from collections.abc import Callable
from difflib import ndiff
from pathlib import Path

import numpy as np
import pytest

from quantizer.model.decode_tail import decode_tail
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from quantizer.qdq.format import PLAIN, TENSORRT, QdqFormat
from quantizer.qdq.placement import Placement, layers_matching, plan_placement
from service.vision.input_size import InputSize
from tests.quantizer.graphs import graph_of
from tests.shared import YOLOV5N, YOLOX_NANO, needs_shared
from tests.tiny_models import TINY, Sketch

GOLDEN = Path(__file__).parents[2] / "golden"


def planned(build: Callable[[Sketch], str], *keep_float: str) -> Placement:
    """The plan of a graph that ends in one convolution, named `last`."""
    s = Sketch()
    x = build(s)
    graph = Graph.of(s.model(s.conv("last", x, (8, 5)), rank=4))
    return plan_placement(graph, layers_matching(graph, keep_float))


def sites(placement: Placement) -> dict[str, str]:
    return {site.tensor: site.group for site in placement.activations}


def reasons(placement: Placement) -> dict[str, str]:
    return {kept.layer: kept.reason for kept in placement.kept_float}


def as_lines(graph: Graph, qdq_format: QdqFormat) -> list[str]:
    """One for each layer that stays float and each tensor with Q/DQ; other layers are int8."""
    placement = plan_placement(graph, qdq_format=qdq_format)
    floats = reasons(placement)
    convolutions = [node.name for node in graph.nodes if node.op_type == "Conv"]
    assert list(placement.layers) == [layer for layer in convolutions if layer not in floats]
    lines = [f"float {layer}: {reason}" for layer, reason in floats.items()]
    lines += [
        f"q/dq  {tensor}" + (f" shares {group}" if group != tensor else "")
        for tensor, group in sites(placement).items()
    ]
    return [*lines, *(f"again {site.tensor} as {site.group}" for site in placement.propagated)]


def check_golden(name: str, graph: Graph) -> None:
    """The plans in both formats: a line that TensorRT's alone has begins with a plus."""
    plain, explicit = as_lines(graph, PLAIN), as_lines(graph, TENSORRT)
    lines = [line.rstrip() for line in ndiff(plain, explicit) if not line.startswith("?")]
    golden, text = GOLDEN / f"{name}.placement.txt", "\n".join(lines) + "\n"
    if os.environ.get("QYOLO_UPDATE_GOLDEN") == "1":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", TINY)
def test_the_plan_is_the_reviewed_one(name):
    check_golden(name, graph_of(name))


@needs_shared
@pytest.mark.parametrize("path", [YOLOV5N, YOLOX_NANO], ids=lambda path: path.stem)
def test_the_plan_of_a_real_model_is_the_reviewed_one(path):
    check_golden(path.stem, read_float_model(path, InputSize.of(640)).graph)


@pytest.mark.parametrize("name", TINY)
def test_the_decode_tail_is_float(name):
    graph = graph_of(name)
    placement = plan_placement(graph)
    tail = decode_tail(graph)
    assert tail
    touched = {tensor for node in tail for tensor in (*node.input, *node.output)}
    assert not touched & set(sites(placement))
    assert not {node.name for node in tail} & set(placement.layers)


def test_a_layer_that_the_caller_names_is_kept_float_with_the_reason():
    placement = plan_placement(graph_of("yolov5"), {"stem": "it hurts", "absent": ""})
    assert reasons(placement) == {"stem": "it hurts"}
    assert "stem" not in placement.layers
    assert "images" not in placement.tensors  # no other layer reads it


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
def test_layers_that_match_a_pattern_stay_float(pattern, kept):
    graph = graph_of("yolov5")
    placement = plan_placement(graph, layers_matching(graph, (pattern,)))
    asked = {layer for layer, reason in reasons(placement).items() if pattern in reason}
    assert asked == kept
    assert not asked & set(placement.layers)


def test_keeping_everything_float_leaves_nothing_to_quantize():
    graph = graph_of("yolov5")
    placement = plan_placement(graph, layers_matching(graph, ("*",)))
    assert (placement.weights, placement.activations) == ((), ())


def one_concat(s: Sketch) -> str:
    parts = [s.conv_silu(name, "images", (3, 8)) for name in "abc"]
    return s.conv_silu("d", s.concat("cat", *parts), (24, 8))


def two_concats_with_a_common_input(s: Sketch) -> str:
    a, b, c = (s.conv_silu(name, "images", (3, 8)) for name in "abc")
    first = s.conv_silu("d", s.concat("cat1", a, b), (16, 8))
    second = s.conv_silu("e", s.concat("cat2", b, c), (16, 8))
    return s.node("Add", "add", first, second)


@pytest.mark.parametrize(
    ("build", "output"),
    [(one_concat, "d.act.y"), (two_concats_with_a_common_input, "add.y")],
)
def test_the_inputs_of_concats_share_one_range(build, output):
    shared = {f"{name}.act.y": "a.act.y" for name in "abc"}
    assert sites(planned(build)) == {"images": "images"} | shared | {output: output}


def test_a_concat_with_a_constant_is_quantized_after_it():
    def build(s: Sketch) -> str:
        position = s.constant("position", np.zeros((1, 1, 64, 64)), np.float32)
        x = s.concat("cat", s.conv_silu("a", "images", (3, 8)), position)
        return s.conv_silu("b", x, (9, 8))

    assert list(sites(planned(build))) == ["images", "cat.y", "b.act.y"]


PASS_THROUGH: dict[str, Callable[[Sketch, str], str]] = {
    "MaxPool": lambda s, x: s.node("MaxPool", "between", x, kernel_shape=[2, 2], strides=[2, 2]),
    "nearest Resize": lambda s, x: s.upsample("between", x),
    "Slice": lambda s, x: s.take("between", x, 0, 8, 1),
    "Split": lambda s, x: s.split("between", x, [8], 1)[0],
    "Concat": lambda s, x: s.concat("between", x),
}
COMPUTING: dict[str, Callable[[Sketch, str], str]] = {
    "linear Resize": lambda s, x: s.node(
        "Resize", "between", x, "", s.constant("scales", [1, 1, 2, 2], np.float32), mode="linear"
    ),
    "AveragePool": lambda s, x: s.node("AveragePool", "between", x, kernel_shape=[2, 2]),
    "Add": lambda s, x: s.node("Add", "between", x, x),
    "Pad": lambda s, x: s.node("Pad", "between", x, s.constant("pads", [0, 0, 1, 1] * 2)),
}


@pytest.mark.parametrize(
    ("between", "quantized"),
    [(op, "a.act.y") for op in PASS_THROUGH.values()]
    + [(op, "between.y") for op in COMPUTING.values()],
    ids=[*PASS_THROUGH, *COMPUTING],
)
def test_qdq_moves_up_through_pass_through_ops_alone(between, quantized):
    def build(s: Sketch) -> str:
        return s.conv_silu("b", between(s, s.conv_silu("a", "images", (3, 8))), (8, 8))

    assert list(sites(planned(build))) == ["images", quantized, "b.act.y"]


def test_an_input_of_several_convolutions_has_one_pair():
    def build(s: Sketch) -> str:
        x = s.conv_silu("a", "images", (3, 8))
        return s.node("Add", "add", s.conv_silu("b", x, (8, 8)), s.conv_silu("c", x, (8, 8)))

    assert list(sites(planned(build))) == ["images", "a.act.y", "add.y"]


@pytest.mark.parametrize("main_is_int8", [True, False])
def test_tensorrt_gets_the_other_branch_of_an_add_in_int8_if_a_convolution_is(main_is_int8):
    """The Add joins the stem's negative, which no convolution reads, and a convolution."""
    s = Sketch()
    stem = s.conv_silu("stem", "images", (3, 8), 3, 2)
    other = s.node("Neg", "other", stem)
    main = s.conv_silu("main", stem, (8, 8), 3)
    total = s.node("Add", "total", other, main)
    graph = Graph.of(s.model(s.conv("last", total, (8, 5)), rank=4))
    floats = {} if main_is_int8 else {"main": "it hurts"}
    assert ("other.y" in sites(plan_placement(graph, floats, TENSORRT))) is main_is_int8


def test_qdq_is_propagated_through_pass_through_ops_of_one_group():
    s = Sketch()
    left = s.conv_silu("left", "images", (3, 8), 3, 2)
    right = s.conv_silu("right", "images", (3, 8), 3, 2)
    pooled = s.node("MaxPool", "pool", left, kernel_shape=[3, 3], pads=[1] * 4)
    both = s.node("Concat", "both", pooled, right, axis=1)
    graph = Graph.of(s.model(s.conv("last", both, (16, 5)), rank=4))
    placement = plan_placement(graph, qdq_format=TENSORRT)
    again = {site.tensor: site.group for site in placement.propagated}
    assert again == {"pool.y": left, "both.y": left}
    assert plan_placement(graph).propagated == ()
