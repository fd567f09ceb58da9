"""Activation statistics: mean and covariance of the inputs that a convolution multiplies."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from quantizer.model.execution import over_images
from quantizer.model.graph import Graph, attribute, attributes, layer_name
from service.vision.detections import Floats

POSITIONS: Final = 256  # sampled in each image; a hundred images give 25,000


@dataclass(frozen=True, slots=True, eq=False)
class ActivationStatistics:
    """Statistics of the patches that a convolution reads, flattened like its weights, by group.

    mean: f64[G,K]; second: f64[G,K,K], the mean outer product. G = groups, K = inputs of a group x
    kernel size.
    """

    mean: NDArray[np.float64]
    second: NDArray[np.float64]

    @property
    def covariance(self) -> NDArray[np.float64]:
        """f64[G,K,K]."""
        return self.second - self.mean[:, :, None] * self.mean[:, None, :]


def input_statistics(
    graph: Graph, layers: Sequence[str], images: Iterable[Floats], threads: int
) -> dict[str, ActivationStatistics]:
    """The statistics of the convolutions' inputs, by layer; executes each image once."""
    layer_set = set(layers)
    nodes = [node for node in graph.nodes if layer_name(node) in layer_set]
    names = [name for name in dict.fromkeys(n.input[0] for n in nodes) if name != graph.input]
    observed = graph.with_outputs(names) if names else graph.model

    def digest(number: int, image: Floats, outputs: list[Floats]) -> list[ActivationStatistics]:
        values = {graph.input: image, **dict(zip(names, outputs, strict=False))}
        return [_statistics(graph, node, values[node.input[0]], number) for node in nodes]

    sums: list[ActivationStatistics] = []
    count = 0
    for statistics in over_images(observed, images, threads, digest):
        sums = list(map(_added, sums, statistics)) if sums else statistics
        count += 1
    return {
        layer_name(node): ActivationStatistics(total.mean / count, total.second / count)
        for node, total in zip(nodes, sums, strict=False)
    }


def _added(a: ActivationStatistics, b: ActivationStatistics) -> ActivationStatistics:
    return ActivationStatistics(a.mean + b.mean, a.second + b.second)


def _statistics(
    graph: Graph, node: onnx.NodeProto, values: Floats, phase: int
) -> ActivationStatistics:
    patches = _patches(graph, node, values[0], phase)
    second = patches @ patches.transpose(0, 2, 1) / patches.shape[2]
    return ActivationStatistics(patches.mean(axis=2, dtype=np.float64), second.astype(np.float64))


def _patches(graph: Graph, node: onnx.NodeProto, values: Floats, phase: int) -> Floats:
    """f32[G,K,P]: the values under the kernel at P of its positions, zeros beyond the border.

    A convolution that leaves its padding to auto_pad is sampled inside the border alone.
    """
    kernel = graph.constant(node.input[1]).shape[2:]
    strides, steps = (attributes(node, name) or (1, 1) for name in ("strides", "dilations"))
    top, left, bottom, right = attributes(node, "pads") or (0, 0, 0, 0)
    padded = np.pad(values, ((0, 0), (top, bottom), (left, right)))
    window = [(k - 1) * step + 1 for k, step in zip(kernel, steps, strict=True)]
    windows = sliding_window_view(padded, window, axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1], :: steps[0], :: steps[1]]
    _, rows, columns, *_ = windows.shape
    # An odd stride with another start in each image reaches every row and column.
    skip = rows * columns // POSITIONS | 1
    y, x = np.divmod(np.arange(phase % skip, rows * columns, skip), columns)
    groups = attribute(node, "group", 1)
    return windows[:, y, x].transpose(0, 2, 3, 1).reshape(groups, -1, len(y))
