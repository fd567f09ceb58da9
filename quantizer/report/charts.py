"""The report's charts, each an SVG as a data URI, so that the page needs no other file."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantizer.calibration.histogram import Bins
from quantizer.int8 import Range
from quantizer.report.data import BlockReport, PointReport

COLUMNS: Final = 128  # of a drawn histogram: 2048 bins are finer than its pixels
WIDTH: Final = 6.0  # of a chart, in inches
CHARACTER: Final = 0.09  # the width of a label's letter at matplotlib's size of text, in inches
INK, ACCENT, MUTED = "#1d4ed8", "#b91c1c", "#94a3b8"


def latency(ms: Mapping[str, float], default: str) -> str:
    """A bar for each variant, the default in full colour."""
    names = list(ms)[::-1]
    figure, axes = _axes(0.7 + 0.4 * len(ms), left=0.2 + CHARACTER * max(map(len, names)))
    colours = [INK if name == default else MUTED for name in names]
    bars = axes.barh(names, [ms[name] for name in names], color=colours)
    axes.bar_label(bars, fmt="%.1f ms", padding=3)
    axes.set_xlim(0, 1.2 * max(ms.values()))
    axes.set_xlabel("milliseconds of one inference, median")
    return _uri(figure)


def sensitivity(blocks: Sequence[BlockReport]) -> str:
    """The noise of each block when it alone is quantized, the most sensitive on top.

    Blocks that stay float are red.
    """
    figure = Figure(figsize=(8, 0.8 + 0.24 * len(blocks)), layout="constrained")
    axes = figure.subplots()
    rising = blocks[::-1]
    positions = range(len(rising))
    colours = [ACCENT if block.freed else MUTED for block in rising]
    axes.barh(positions, [10 ** (-block.sqnr_db / 10) for block in rising], color=colours)
    axes.set_yticks(positions, [_label(block) for block in rising])
    axes.set_xscale("log")
    axes.set_xlabel("noise of the outputs over their signal, when nothing else is in int8")
    return _uri(figure)


def frontier(points: Sequence[PointReport], max_loss: float) -> str:
    """The predicted loss of each set of float layers against the time that they add."""
    figure, axes = _axes(2.6, left=0.65)
    across = [100 * point.cost for point in points]
    axes.plot(across, [point.loss for point in points], color=MUTED, marker="o")
    axes.plot(across[-1:], [points[-1].loss], color=INK, marker="o")
    axes.axhline(max_loss, color=ACCENT, linewidth=1.0)
    for x, point in zip(across, points, strict=True):
        axes.annotate(
            str(len(point.kept_float)), (x, point.loss), (4, 4), textcoords="offset points"
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time that the float layers add, estimated, % of the convolutions' time")
    axes.set_ylabel("predicted loss")
    return _uri(figure)


class Histograms:
    """Counts on a logarithmic scale with the bounds of the range, as in the paper's figure.

    All are drawn on one figure: to make another takes three times as long as to draw on it.
    """

    def __init__(self) -> None:
        self._figure = Figure(figsize=(3.4, 1.7))
        self._axes = axes = self._figure.add_axes((0.02, 0.16, 0.96, 0.8))
        axes.set_yscale("log")
        axes.get_yaxis().set_visible(False)  # ticks would double the page's size
        axes.tick_params(labelsize=7)
        self._counts = axes.stairs(np.ones(COLUMNS), fill=True, color=MUTED)
        self._low, self._high = (axes.axvline(color=ACCENT, linewidth=1.2) for _ in range(2))

    def draw(self, bins: Bins, bounds: Range, floor: float | None) -> str:
        """`floor` is the analytic lower bound; None draws the lower bound as an observed one."""
        counts = bins.counts.reshape(COLUMNS, -1).sum(axis=1)
        edges = bins.edges[:: len(bins.counts) // COLUMNS]
        self._counts.set_data(counts, edges)
        self._low.set(xdata=[bounds.low] * 2, color=ACCENT if floor is None else INK)
        self._high.set(xdata=[bounds.high] * 2)
        least, most = counts[counts > 0].min(initial=1.0), counts.max(initial=1.0)
        self._axes.set_ylim(max(0.5, float(least)) / 2, 1.5 * float(most))
        first, last = min(edges[0], bounds.low), max(edges[-1], bounds.high)
        margin = 0.04 * (last - first) or 1.0
        self._axes.set_xlim(first - margin, last + margin)
        self._axes.set_xticks(np.unique([edges[0], 0.0, bounds.high, edges[-1]]).round(2))
        return _uri(self._figure)


def _label(block: BlockReport) -> str:
    first, others = block.layers[0], len(block.layers) - 1
    return f"{first} and {others} more" if others else first


def _axes(height: float, left: float) -> tuple[Figure, Axes]:
    """A new chart, with room for the labels, in inches: matplotlib's own layout draws
    everything a second time to measure it."""
    figure = Figure(figsize=(WIDTH, height))
    bottom, margin = 0.48, 0.08
    sides = (left / WIDTH, bottom / height, 1 - (left + margin) / WIDTH)
    return figure, figure.add_axes((*sides, 1 - (bottom + margin) / height))


def _uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    # Text stays text, and the same figure gives the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "qyolo"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
