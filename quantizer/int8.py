"""The arithmetic of quantization.

Source: Q-YOLO (arXiv 2307.04816) section 3, and the QuantizeLinear operator of ONNX:
q = clip(round(x / scale) + zero_point), x' = (q - zero_point) * scale, ties rounded to even.
Engines run at 8 bits. Fewer bits exist for the study alone; they are stored as 8-bit integers of
which only the b-bit range is used.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.vision.detections import Floats

Steps = NDArray[np.uint8] | NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Range:
    """The interval of real values that is represented; values outside it are clipped."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scheme:
    """How activations are represented: asymmetric unsigned, or symmetric signed, in `bits`.

    half: float16 represents the scale exactly.
    """

    symmetric: bool = False
    bits: int = 8
    half: bool = False

    @property
    def lowest(self) -> int:
        return step_limits(self.bits, self.symmetric)[0]

    @property
    def highest(self) -> int:
        return step_limits(self.bits, self.symmetric)[1]


WeightRule = Literal["minmax", "mse"]


@dataclass(frozen=True, slots=True)
class WeightScheme:
    """How weights are represented; always symmetric.

    rule: each channel is clipped at its peak (minmax, as in the paper), or where the squared error
    is least (mse). half: as in Scheme.
    """

    rule: WeightRule = "minmax"
    bits: int = 8
    half: bool = False


PAPER_WEIGHTS: Final = WeightScheme()
CLIPPINGS: Final = np.linspace(1.0, 0.3, 71)  # fractions of a channel's peak that mse tries


@dataclass(frozen=True, slots=True, eq=False)
class QuantParams:
    """scale: f32[] or f32[C]; zero_point: u8 or i8 of the same shape; axis: of the channels."""

    scale: Floats
    zero_point: Steps
    axis: int | None = None
    bits: int = 8

    @property
    def limits(self) -> tuple[int, int]:
        return step_limits(self.bits, self.zero_point.dtype == np.int8)


def step_limits(bits: int, signed: bool) -> tuple[int, int]:
    """The lowest and the highest step."""
    half = 1 << (bits - 1)
    return (-half, half - 1) if signed else (0, 2 * half - 1)


def grid_of(
    low: NDArray[np.float64], high: NDArray[np.float64], scheme: Scheme
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scales and zero points of many ranges; each range is widened to contain zero."""
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if scheme.symmetric:
        scale = np.maximum(high, -low) / scheme.highest
        zero = np.zeros_like(scale)
    else:
        scale = (high - low) / scheme.highest
        zero = -low
    scale = np.maximum(scale, np.finfo(np.float32).tiny)  # a tensor that is always zero
    if scheme.half:
        scale = _up_to_half(scale)
    return scale, np.clip(np.rint(zero / scale), scheme.lowest, scheme.highest)


def activation_params(bounds: Range, scheme: Scheme) -> QuantParams:
    """Per-tensor parameters of one range."""
    scale, zero = grid_of(np.array(bounds.low), np.array(bounds.high), scheme)
    steps = zero.astype(np.int8) if scheme.symmetric else zero.astype(np.uint8)
    return QuantParams(scale.astype(np.float32), steps, bits=scheme.bits)


def weight_params(weight: Floats, axis: int, scheme: WeightScheme = PAPER_WEIGHTS) -> QuantParams:
    """Per-channel symmetric parameters of a weight."""
    others = tuple(dim for dim in range(weight.ndim) if dim != axis)
    peak = np.abs(weight).max(axis=others)
    _, highest = step_limits(scheme.bits, signed=True)

    def clipped_at(share: np.float64) -> QuantParams:
        scale = np.where(peak > 0, peak * share / highest, 1.0)  # 1: a channel of zeros
        if scheme.half:
            scale = _up_to_half(scale)
        zeros = np.zeros(scale.shape, np.int8)
        return QuantParams(scale.astype(np.float32), zeros, axis, scheme.bits)

    def error_of(params: QuantParams) -> NDArray[np.float64]:
        error = dequantize_array(quantize_array(weight, params), params) - weight
        total: NDArray[np.float64] = np.square(error, dtype=np.float64).sum(axis=others)
        return total

    if scheme.rule == "minmax":
        return clipped_at(np.float64(1.0))
    tried = [clipped_at(share) for share in CLIPPINGS]
    best = np.argmin([error_of(params) for params in tried], axis=0)
    scales = np.stack([params.scale for params in tried])
    scale = np.take_along_axis(scales, best[None], axis=0)[0]
    return QuantParams(scale, tried[0].zero_point, axis, scheme.bits)


def _up_to_half(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The next float16 number, rounded up so that no range shrinks."""
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    half = np.where(half < scale, np.nextafter(half, np.float16(np.inf)), half)
    return np.minimum(half, np.finfo(np.float16).max).astype(np.float64)


def quantize_array(values: Floats, params: QuantParams) -> Steps:
    """f32 -> u8 or i8 of the same shape."""
    scale, zero = _aligned(params, values.ndim)
    steps = np.rint(values / scale) + zero
    clipped: Steps = np.clip(steps, *params.limits).astype(params.zero_point.dtype)
    return clipped


def dequantize_array(steps: Steps, params: QuantParams) -> Floats:
    """u8 or i8 -> f32 of the same shape."""
    scale, zero = _aligned(params, steps.ndim)
    return ((steps.astype(np.float32) - zero) * scale).astype(np.float32)


def _aligned(params: QuantParams, ndim: int) -> tuple[Floats, Floats]:
    scale, zero = params.scale, params.zero_point.astype(np.float32)
    if params.axis is None:
        return scale, zero
    shape = [1] * ndim
    shape[params.axis] = -1
    return scale.reshape(shape), zero.reshape(shape)
