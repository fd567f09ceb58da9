"""Muon: momentum with orthogonalised updates, for the weights of convolutions.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). The updates are
scaled as in arXiv 2502.16982, so that AdamW's learning rate and weight decay can be used.
"""

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn

# From the same text: five steps bring every singular value near 1.
COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
STEPS: Final = 5
SCALE: Final = 0.2  # root mean square of an AdamW update


class Muon(torch.optim.Optimizer):
    def __init__(
        self, weights: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                lookahead = weight.grad.lerp(momentum, group["momentum"])
                update = orthogonalise(lookahead.flatten(1))
                scale = SCALE * max(update.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view_as(weight), alpha=-group["lr"] * scale)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Roughly the nearest matrix with orthonormal rows or columns (Newton-Schulz iteration)."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
