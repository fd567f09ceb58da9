"""Draw the figures of docs/explanation/unilateral-histogram.md from the bundled detector.

.venv/bin/python docs/figures.py

It calibrates on the bundled images, as a build does, and shows one tensor.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from quantizer.calibration.analytic_bounds import SILU_MINIMUM, lower_bounds
from quantizer.calibration.histogram import Histogram
from quantizer.calibration.images import ImageFiles, find_images
from quantizer.calibration.ranges import RANGE_RULES, START_BIN, squared_errors
from quantizer.calibration.statistics import observe
from quantizer.int8 import Scheme
from quantizer.model.float_model import read_float_model
from quantizer.model.layout import recognise
from quantizer.qdq.format import QdqFormat
from quantizer.qdq.placement import plan_placement
from service.engines.cpu import usable_threads
from service.vision.input_size import InputSize
from zoo import bundle

TARGET = Path(__file__).parent / "explanation"
SIZE = 640
TENSOR = "/backbone/stem/stem.0/stem.0.2/Mul_output_0"  # behind the first convolution
COLUMNS = 256
SIMPLE_RULES = ("percentile", "minmax")
INK, ACCENT, GREEN, MUTED = "#1d4ed8", "#b91c1c", "#15803d", "#94a3b8"


def main() -> None:
    histograms, bounds = calibrated()
    lows = [histograms[name].low for name, bound in bounds.items() if bound == SILU_MINIMUM]
    print(f"{len(lows)} tensors behind a SiLU; smallest values {min(lows):.4f} to {max(lows):.4f}")
    save(ranges_figure(histograms[TENSOR]), "histogram.svg")
    save(search_figure(histograms[TENSOR]), "search.svg")


def calibrated() -> tuple[dict[str, Histogram], dict[str, float]]:
    """The histograms of all quantized tensors, and their analytic lower bounds."""
    model = read_float_model(bundle.model(), InputSize.of(SIZE))
    detector = recognise(model)
    placement = plan_placement(model.graph, {}, QdqFormat())
    files = ImageFiles(find_images(bundle.CALIBRATION), InputSize.of(SIZE), detector.preprocess)
    images, threads = files.decodable(), usable_threads()
    histograms = observe(model.graph, placement.tensors, images, threads).histograms
    bounds = lower_bounds(model.graph)
    return dict(histograms), {name: bounds[name] for name in histograms if name in bounds}


def ranges_figure(histogram: Histogram) -> Figure:
    """The values of the tensor, and the range that each rule chooses at 8 bits."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    bins = histogram.bins
    counts = bins.counts.reshape(COLUMNS, -1).sum(axis=1)
    axes.stairs(counts, bins.edges[:: len(bins.counts) // COLUMNS], fill=True, color=MUTED)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.axvline(SILU_MINIMUM, color=INK, label="lower bound: SiLU's minimum")
    for rule, colour, style in (
        ("percentile", GREEN, ":"),
        ("uh", ACCENT, "-"),
        ("minmax", "k", "--"),
    ):
        high = RANGE_RULES[rule](histogram, SILU_MINIMUM, Scheme()).high
        axes.axvline(
            high, color=colour, linestyle=style, label=f"upper bound by {rule}: {high:.1f}"
        )
    axes.set_xlabel("value")
    axes.set_ylabel("how often")
    axes.legend()
    share = bins.counts[bins.centres < 0].sum() / bins.counts.sum()
    print(f"{100 * share:.0f} % of the values are negative")
    return figure


def search_figure(histogram: Histogram) -> Figure:
    """The signal-to-error ratio that UH maximises, over the upper bound."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    bins = histogram.bins
    highs = bins.edges[START_BIN:]
    lows = np.full_like(highs, SILU_MINIMUM)
    signal = float(bins.counts @ np.square(bins.centres))
    for bits, colour in ((8, INK), (6, GREEN), (4, ACCENT)):
        scheme = Scheme(bits=bits)
        decibels = 10 * np.log10(signal / squared_errors(bins, lows, highs, scheme))
        high = RANGE_RULES["uh"](histogram, SILU_MINIMUM, scheme).high
        best = float(decibels.max())
        axes.plot(highs, decibels, color=colour, label=f"{bits} bits")
        axes.plot(high, best, "o", color=colour)
        axes.annotate(f"{high:.1f}", (high, best), (0, 5), textcoords="offset points", ha="center")
        others = [RANGE_RULES[rule](histogram, None, scheme).high for rule in SIMPLE_RULES]
        shown = [f"{each:.1f}: {np.interp(each, highs, decibels):.1f} dB" for each in others]
        print(f"{bits} bits: UH {high:.1f}: {best:.1f} dB; percentile, MinMax {', '.join(shown)}")
    axes.set_ylim(top=axes.get_ylim()[1] + 3)
    axes.set_xlabel("upper bound")
    axes.set_ylabel("signal to error, dB")
    axes.legend(loc="lower center", ncols=3)
    axes.grid(alpha=0.3)
    return figure


def save(figure: Figure, name: str) -> None:
    with mpl.rc_context({"svg.hashsalt": "qyolo"}):
        figure.savefig(TARGET / name, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
