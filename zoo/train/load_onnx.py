"""qyolo-nano.onnx -> the network, to continue training without a checkpoint.

In an exported file the batch norms are folded into the convolutions. Here they are separated again
with the same result: all filters are scaled to one size, and each norm takes its statistics from
some samples.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from zoo.train.network import ConvUnit, Detector

FILTER_RMS: Final = 0.05  # root mean square of a filter's weights, about as in training


@torch.no_grad()
def load_onnx(path: Path, samples: Tensor) -> Detector:
    """The detector with the weights of a file; samples f32[N,3,S,S] (RGB, 0..1) set its norms.

    Raises ValueError if the file is of another network.
    """
    detector = Detector().eval()
    loaded = list(_convolutions(path))
    units = [unit for unit in detector.modules() if isinstance(unit, ConvUnit)]
    inner = {unit[0] for unit in units}
    plain = [m for m in detector.modules() if isinstance(m, nn.Conv2d) and m not in inner]
    if len(loaded) != len(units) + len(plain):
        raise ValueError(f"{path}: {len(loaded)} convolutions, not {len(units) + len(plain)}")
    remaining = iter(loaded)  # in the order of the calls
    hooks = [
        u.register_forward_pre_hook(lambda u, x: _load_unit(u, x[0], *next(remaining)))
        for u in units
    ]
    hooks += [
        c.register_forward_pre_hook(lambda c, _: _load_plain(c, *next(remaining))) for c in plain
    ]
    detector(samples)
    for hook in hooks:
        hook.remove()
    return detector.train()


def _convolutions(path: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights and bias of each convolution; the first one's are changed back to RGB in 0..1."""
    graph = onnx.load(path).graph
    values = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    first = True
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in values:  # a shared initializer
            values[node.output[0]] = values[node.input[0]]
        if node.op_type == "Conv":
            weight, bias = (values[name] for name in node.input[1:])
            yield (weight.flip(1) * 255 if first else weight), bias
            first = False


def _load_unit(unit: ConvUnit, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    convolution, norm = unit[0], unit[1]
    _check_shape(convolution.weight, weight)
    gain = weight.flatten(1).square().mean(dim=1).sqrt().clamp(min=1e-8) / FILTER_RMS
    convolution.weight.copy_(weight / gain[:, None, None, None])
    output = convolution(x)
    variance, mean = torch.var_mean(output, dim=(0, 2, 3))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(gain * (variance + norm.eps).sqrt())
    norm.bias.copy_(bias + gain * mean)


def _load_plain(convolution: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    _check_shape(convolution.weight, weight)
    convolution.weight.copy_(weight)
    convolution.bias.copy_(bias)


def _check_shape(own: Tensor, loaded: Tensor) -> None:
    if own.shape != loaded.shape:
        raise ValueError(f"a convolution of {tuple(loaded.shape)} in place of {tuple(own.shape)}")
