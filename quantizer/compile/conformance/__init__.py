"""Check Q/DQ graphs against what NVIDIA publishes on explicit quantization in TensorRT 10 and 11.

The rules share no table with the modules that write such graphs, so that a mistake there is found.
"""

from collections.abc import Mapping
from typing import Final

import onnx

from quantizer.compile.conformance import accuracy, fusion, parser
from quantizer.compile.conformance.network import Consequence, Finding, Network, Rule
from quantizer.model.graph import layer_name

__all__ = ["RULES", "Consequence", "Finding", "check"]

RULES: Final[Mapping[Consequence, tuple[Rule, ...]]] = {
    "build failure": parser.RULES,
    "no int8 kernel": fusion.KERNEL_RULES,
    "reformat": fusion.REFORMAT_RULES,
    "accuracy": accuracy.RULES,
}


def check(model: onnx.ModelProto) -> list[Finding]:
    """Every violation of a rule, those that make the build fail first."""
    network = Network.of(model)
    return [
        Finding(rule.__name__, layer_name(node), consequence, message)
        for consequence, rules in RULES.items()
        for rule in rules
        for node, message in rule(network)
    ]
