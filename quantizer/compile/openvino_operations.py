"""The execution graph of a compiled OpenVINO network: its operations, and their times."""

import time
from collections.abc import Iterator, Sequence
from math import prod
from typing import Final

import numpy as np
import openvino as ov

from quantizer.compile.operations import CONVOLUTION, Operation

PROFILING: Final = {"PERF_COUNT": "YES"}  # an option of compile_model and import_model
ROUNDS: Final = 8  # at most
FEWEST_ROUNDS: Final = 2
SECONDS: Final = 0.5  # no further round begins later, once FEWEST_ROUNDS are done


def executed_precisions(compiled: ov.CompiledModel) -> dict[str, str]:
    """By ONNX node: the precision of the convolution into which it was fused."""
    return {
        layer: operation.precision
        for operation in _operations(compiled, {})
        if operation.convolves
        for layer in operation.layers
    }


def profiled(compiled: ov.CompiledModel) -> tuple[Operation, ...]:
    """The operations that one inference of zeros executes, in order; each with its median time.

    The network must be compiled with PROFILING. What takes no time is left out, convolutions
    excepted: a layout change that only renames the axes moves no memory. Raises RuntimeError.
    """
    request = compiled.create_infer_request()
    blank = ov.Tensor(compiled.input(0).element_type, compiled.input(0).shape)
    blank.data[:] = 0
    means: list[dict[str, float]] = []
    started = time.perf_counter()
    while len(means) <= ROUNDS:
        request.infer([blank])
        means.append(_mean_milliseconds(request))
        if len(means) > FEWEST_ROUNDS and time.perf_counter() - started > SECONDS:
            break
    names = {name for mean in means for name in mean}
    ms = {name: median_of_means([mean.get(name, 0.0) for mean in means]) for name in names}
    return tuple(each for each in _operations(compiled, ms) if each.name in ms or each.convolves)


def median_of_means(means: Sequence[float]) -> float:
    """The median of the rounds after the first, from the mean of all rounds after each round.

    OpenVINO reports the mean of all inferences so far; the first allocates.
    """
    totals = np.asarray(means) * np.arange(1, len(means) + 1)
    return max(0.0, round(float(np.median(np.diff(totals))), 4))


def _mean_milliseconds(request: ov.InferRequest) -> dict[str, float]:
    """The mean of all inferences, by the operations that took a microsecond."""
    return {
        node.node_name: node.real_time.total_seconds() * 1000
        for node in request.profiling_info
        if node.status == ov.ProfilingInfo.Status.EXECUTED
    }


def _operations(compiled: ov.CompiledModel, ms: dict[str, float]) -> Iterator[Operation]:
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: value.astype(str) for key, value in node.get_rt_info().items()}
        name, kind = node.get_friendly_name(), info["layerType"]
        yield Operation(
            name=name,
            kind=kind,
            precision=info["runtimePrecision"],
            kernel=info["primitiveType"],
            ms=ms.get(name, 0.0),
            macs=_macs(node) if kind == CONVOLUTION else 0,
            layers=tuple(info["originalLayersNames"].split(",")),
        )


def _macs(convolution: ov.Node) -> int:
    """Multiply-accumulates for one image: each output value takes its share of the weights."""
    output = [int(each) for each in convolution.output(0).shape]
    weights = [int(each) for each in convolution.input_value(1).shape]
    return prod(output) * prod(weights) // output[1]
