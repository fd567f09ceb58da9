"""Analytic lower bounds: the lowest value of a tensor that follows from the graph's operators.

1. SiLU (x * sigmoid(x), or one of its fused operators): -0.2785, the paper's constant.
2. ReLU, Sigmoid, Softmax, HardSigmoid, and the image itself: 0. HardSwish: -0.375.
3. Pass-through operators (Concat, MaxPool, Resize, ...): the smallest bound of their inputs.
4. A residual Add: the sum of the bounds of its inputs.
5. A Mul by positive constants: the bound times the one that makes the product least.
Any other tensor has no analytic bound; the range rules then use the observed minimum.
"""

from typing import Final

import numpy as np
import onnx

from quantizer.model.graph import PASS_THROUGH_OPS, Graph, silu_input

SILU_MINIMUM: Final = -0.2785  # of x * sigmoid(x), at x = -1.2785 (Q-YOLO, section 3.2)
HARD_SWISH_MINIMUM: Final = -0.375  # of x * clip(x / 6 + 1/2, 0, 1), at x = -1.5

FIXED: Final = {
    "Relu": 0.0,
    "Sigmoid": 0.0,
    "Softmax": 0.0,
    "HardSigmoid": 0.0,
    "HardSwish": HARD_SWISH_MINIMUM,
    "Swish": SILU_MINIMUM,
}


def lower_bounds(graph: Graph) -> dict[str, float]:
    """The analytic bound of each tensor that has one, by the tensor's name."""
    bounds = {graph.input: 0.0}
    for node in graph.nodes:
        bound = _bound(graph, node, bounds)
        if bound is not None:
            bounds.update(dict.fromkeys(node.output, bound))
    return bounds


def _bound(graph: Graph, node: onnx.NodeProto, bounds: dict[str, float]) -> float | None:
    if node.op_type in FIXED:
        return FIXED[node.op_type]
    if silu_input(graph, node) is not None:
        return SILU_MINIMUM
    # A constant has no bound here, so an Add or Concat that reads one has none either.
    data = node.input if node.op_type in {"Add", "Concat"} else node.input[:1]
    known = [bounds[name] for name in data if name in bounds]
    if not known or len(known) < len(data):
        return None
    if node.op_type in PASS_THROUGH_OPS and not _overshoots(node):
        return min(known)
    if node.op_type == "Mul" and graph.is_constant(node.input[1]):
        factors = graph.constant(node.input[1]).astype(np.float64)
        return float((known[0] * factors).min()) if factors.min() > 0 else None
    return sum(known) if node.op_type == "Add" else None


def _overshoots(node: onnx.NodeProto) -> bool:
    """Cubic interpolation leaves the interval of its inputs; nearest and linear do not."""
    return any(attr.name == "mode" and attr.s == b"cubic" for attr in node.attribute)
