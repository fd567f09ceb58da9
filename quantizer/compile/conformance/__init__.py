"""Q/DQ graphs against what NVIDIA publishes on explicit quantization for TensorRT 10 and 11.

The rules share no list with the modules that write such graphs, so no mistake either.
"""

from collections.abc import Mapping
from typing import Final

import onnx

from quantizer.compile.conformance import accuracy, fusion, parser
from quantizer.compile.conformance.network import Consequence, Finding, Network, Rule

__all__ = ["RULES", "Consequence", "Finding", "Rule", "check"]

RULES: Final[Mapping[str, Rule]] = {
    rule.__name__: rule for rule in (*parser.RULES, *fusion.RULES, *accuracy.RULES)
}


def check(model: onnx.ModelProto) -> list[Finding]:
    """What breaks a rule, the rules that make the build fail first; the model is left alone."""
    network = Network.of(model)
    return [finding for rule in RULES.values() for finding in rule(network)]
