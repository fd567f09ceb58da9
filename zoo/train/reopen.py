"""qyolo-nano.onnx -> the network, to go on training where no checkpoint of it is left.

An exported file has its batch norms folded into the convolutions. Here they are put back so that
the network answers as before: all filters get one size, and each norm is set by what it sees of
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

FILTER_SIZE: Final = 0.05  # root mean square of a filter's weights, about where training keeps it


@torch.no_grad()
def reopen(path: Path, samples: Tensor) -> Detector:
    """The detector with the file's weights; samples f32[N,3,S,S] (RGB, 0..1) set its batch norms.

    Raises ValueError if the file is not of this network.
    """
    detector = Detector().eval()
    folded = list(_folded(path))
    units = [unit for unit in detector.modules() if isinstance(unit, ConvUnit)]
    inner = {unit[0] for unit in units}
    plain = [m for m in detector.modules() if isinstance(m, nn.Conv2d) and m not in inner]
    if len(folded) != len(units) + len(plain):
        raise ValueError(f"{path}: {len(folded)} convolutions, not {len(units) + len(plain)}")
    in_turn = iter(folded)  # the file's order is that of the calls
    hooks = [
        u.register_forward_pre_hook(lambda u, x: _unfold(u, x[0], *next(in_turn))) for u in units
    ]
    hooks += [c.register_forward_pre_hook(lambda c, _: _fill(c, *next(in_turn))) for c in plain]
    detector(samples)
    for hook in hooks:
        hook.remove()
    return detector.train()


def _folded(path: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights and bias of each convolution; the first as for RGB in 0..1 again."""
    graph = onnx.load(path).graph
    values = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    first = True
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in values:  # equal tensors are stored once
            values[node.output[0]] = values[node.input[0]]
        if node.op_type == "Conv":
            weight, bias = (values[name] for name in node.input[1:])
            yield (weight.flip(1) * 255 if first else weight), bias
            first = False


def _unfold(unit: ConvUnit, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    convolution, norm = unit[0], unit[1]
    _fits(convolution.weight, weight)
    gain = weight.flatten(1).square().mean(dim=1).sqrt().clamp(min=1e-8) / FILTER_SIZE
    convolution.weight.copy_(weight / gain[:, None, None, None])
    seen = convolution(x)
    variance, mean = torch.var_mean(seen, dim=(0, 2, 3))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(gain * (variance + norm.eps).sqrt())
    norm.bias.copy_(bias + gain * mean)


def _fill(convolution: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    _fits(convolution.weight, weight)
    convolution.weight.copy_(weight)
    convolution.bias.copy_(bias)


def _fits(own: Tensor, given: Tensor) -> None:
    if own.shape != given.shape:
        raise ValueError(f"a convolution of {tuple(given.shape)} where {tuple(own.shape)} belongs")
