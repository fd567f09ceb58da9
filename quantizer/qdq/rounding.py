"""Adaptive rounding: round weights up or down so that the convolution's output changes least.

The output's error is the weights' errors times the input, so with the input's covariance C the
expected squared error is e C e for each output channel. Weights are rounded one after the other;
each rounding error is compensated in the weights that are not rounded yet.

Source of the objective: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training
Quantization" (AdaRound, 2020), eq. 13; of the algorithm: Frantar et al., "GPTQ: Accurate
Post-Training Quantization for Generative Pre-trained Transformers" (2022), algorithm 1. The mean of
the error is left to bias correction.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from quantizer.calibration.activation_statistics import ActivationStatistics
from quantizer.int8 import QuantParams, Steps
from quantizer.qdq.weights import Rounding, round_to_nearest
from service.vision.detections import Floats

DAMPING: Final = 0.01  # of the mean variance, added to each: the samples only estimate them
BLOCK: Final = 64  # columns whose corrections are applied to the later ones at once

Doubles = NDArray[np.float64]


def adaptive_rounding(inputs: Mapping[str, ActivationStatistics]) -> Rounding:
    """Rounds the weights of the layers of `inputs` adaptively, other weights to nearest."""

    def rounding(layer: str, weight: Floats, params: QuantParams) -> Steps:
        if layer in inputs:
            return round_adaptively(weight, params, inputs[layer])
        return round_to_nearest(layer, weight, params)

    return rounding


def round_adaptively(
    weight: Floats, params: QuantParams, statistics: ActivationStatistics
) -> Steps:
    """f32[O,...] -> i8 of the same shape; output channels are the first axis."""
    covariance = statistics.covariance
    groups, size, _ = covariance.shape
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    # The largest variance is rounded first, while the most others are left to compensate for it.
    order = np.argsort(-variance, axis=1)
    ordered = np.take_along_axis(covariance, order[:, :, None], axis=1)
    ordered = np.take_along_axis(ordered, order[:, None, :], axis=2)
    weights = np.take_along_axis(
        weight.reshape(groups, -1, size).astype(np.float64), order[:, None, :], axis=2
    )
    scale = params.scale.reshape(groups, -1).astype(np.float64)
    rounded = _round_in_order(weights, scale, params.limits, _compensation(ordered))
    steps = np.empty_like(rounded)
    np.put_along_axis(steps, np.broadcast_to(order[:, None, :], rounded.shape), rounded, axis=2)
    return steps.reshape(weight.shape).astype(np.int8)


def _compensation(covariance: Doubles) -> Doubles:
    """f64[G,K,K], upper triangular: row i holds how the later weights compensate the error of i.

    It is the Cholesky factor of the inverse, as in GPTQ.
    """
    size = covariance.shape[-1]
    level = np.trace(covariance, axis1=1, axis2=2) / size
    damping = np.where(level > 0, DAMPING * level, 1.0)
    damped = covariance + damping[:, None, None] * np.eye(size)
    return np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)


def _round_in_order(
    weights: Doubles, scale: Doubles, limits: tuple[int, int], compensation: Doubles
) -> Doubles:
    """f64[G,O,K] weights -> steps of the same shape; `scale` is f64[G,O]."""
    left, steps = weights.copy(), np.empty_like(weights)
    size = weights.shape[2]
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        errors = np.empty_like(left[:, :, start:end])
        for i in range(start, end):
            row = compensation[:, i, :]
            steps[:, :, i] = np.clip(np.rint(left[:, :, i] / scale), *limits)
            error = (left[:, :, i] - steps[:, :, i] * scale) / row[:, i, None]
            left[:, :, i:end] -= error[:, :, None] * row[:, None, i:end]
            errors[:, :, i - start] = error
        left[:, :, end:] -= errors @ compensation[:, start:end, end:]
    return steps
