from collections.abc import Callable

import numpy as np
import pytest

from quantizer.calibration.analytic_bounds import lower_bounds
from quantizer.model.graph import Graph
from tests.tiny_models import Sketch

SILU = -0.2785
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}


def conv(s: Sketch, name: str = "conv") -> str:
    return s.conv(name, "images", (3, 4))


def silu(s: Sketch, name: str = "conv") -> str:
    return s.silu(name, conv(s, name))


def silu_gate_first(s: Sketch) -> str:
    x = conv(s)
    return s.node("Mul", "act", s.node("Sigmoid", "gate", x), x)


def gated_by_another(s: Sketch) -> str:
    return s.node("Mul", "act", conv(s, "a"), s.node("Sigmoid", "gate", conv(s, "b")))


def relu(s: Sketch, name: str = "conv") -> str:
    return s.node("Relu", f"{name}.act", conv(s, name))


def resized(s: Sketch, mode: str) -> str:
    scales = s.constant("scales", [1, 1, 2, 2], np.float32)
    return s.node("Resize", "resize", silu(s), "", scales, mode=mode)


def padded(s: Sketch) -> str:
    pads = s.constant("pads", [0, 0, 1, 1, 0, 0, 1, 1])
    return s.node("Pad", "pad", silu(s), pads)


def pass_through_chain(s: Sketch) -> str:
    x = s.concat("cat", silu(s, "a"), silu(s, "b"))
    x = s.upsample("up", s.node("MaxPool", "pool", x, **POOL))
    return s.node("Transpose", "last", s.take("slice", x, 0, 4, 1), perm=[0, 2, 3, 1])


BOUNDS: dict[str, tuple[Callable[[Sketch], str], float | None]] = {
    "the image": (lambda s: s.node("Identity", "same", "images"), 0.0),
    "a convolution": (conv, None),
    "SiLU": (silu, SILU),
    "SiLU, gate first": (silu_gate_first, SILU),
    "a product with the Sigmoid of another tensor": (gated_by_another, None),
    "ReLU": (relu, 0.0),
    "Sigmoid": (lambda s: s.node("Sigmoid", "sigmoid", conv(s)), 0.0),
    "Softmax": (lambda s: s.node("Softmax", "softmax", conv(s)), 0.0),
    "HardSigmoid": (lambda s: s.node("HardSigmoid", "act", conv(s)), 0.0),
    "HardSwish": (lambda s: s.node("HardSwish", "act", conv(s)), -0.375),
    "Tanh": (lambda s: s.node("Tanh", "act", conv(s)), None),
    "Concat of SiLU and ReLU": (lambda s: s.concat("cat", relu(s, "a"), silu(s, "b")), SILU),
    "Concat with a convolution": (lambda s: s.concat("cat", silu(s, "a"), conv(s, "b")), None),
    "Concat with a constant": (
        lambda s: s.concat("cat", silu(s), s.constant("c", np.zeros((1, 1, 64, 64)), np.float32)),
        None,
    ),
    "residual Add of SiLUs": (lambda s: s.node("Add", "add", silu(s, "a"), silu(s, "b")), 2 * SILU),
    "Add of SiLU and ReLU": (lambda s: s.node("Add", "add", silu(s, "a"), relu(s, "b")), SILU),
    "Add of a convolution": (lambda s: s.node("Add", "add", silu(s, "a"), conv(s, "b")), None),
    "Add of a constant": (lambda s: s.plus("add", silu(s), -5), None),
    "product with a constant": (lambda s: s.times("scaled", silu(s), -1), None),
    "product with positive constants": (
        lambda s: s.times("scaled", silu(s), np.array([1, 3, 2, 1]).reshape(4, 1, 1)),
        3 * SILU,
    ),
    "product of ReLU with positive constants": (lambda s: s.times("scaled", relu(s), 2), 0.0),
    "MaxPool of a convolution": (lambda s: s.node("MaxPool", "pool", conv(s), **POOL), None),
    "linear Resize": (lambda s: resized(s, "linear"), SILU),
    "cubic Resize overshoots": (lambda s: resized(s, "cubic"), None),
    "Split, first": (lambda s: s.split("split", silu(s), [2, 2], 1)[0], SILU),
    "Split, second": (lambda s: s.split("split", silu(s), [2, 2], 1)[1], SILU),
    "Gather": (
        lambda s: s.node("Gather", "gather", silu(s), s.constant("index", [0, 2]), axis=1),
        SILU,
    ),
    "Reshape": (lambda s: s.reshape("shape", silu(s), [1, 2, 2, -1]), SILU),
    "Pad brings in zeros": (padded, None),
    "a chain of pass-through operators": (pass_through_chain, SILU),
    "slices of the image": (lambda s: s.take("slice", "images", 0, 9999, 2, 2), 0.0),
}


@pytest.mark.parametrize(("build", "bound"), BOUNDS.values(), ids=BOUNDS)
def test_the_analytic_lower_bound_of(build, bound):
    s = Sketch()
    tensor = build(s)
    found = lower_bounds(Graph.of(s.model(tensor, rank=4))).get(tensor)
    assert found == (None if bound is None else pytest.approx(bound))


def test_the_papers_constant_is_below_the_minimum_of_silu():
    x = np.linspace(-3, 0, 100_001)
    assert SILU <= (x / (1 + np.exp(-x))).min() < SILU + 1e-4
