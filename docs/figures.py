"""Draw the figures of docs/explanation/unilateral-histogram.md from the detector in the box.

.venv/bin/python docs/figures.py

It observes the pictures that come with it, as a build does, and looks at one tensor.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from quantizer.calibration.analytic_bounds import SILU_MINIMUM, lower_bounds
from quantizer.calibration.histogram import Histogram
from quantizer.calibration.images import Images, find_images
from quantizer.calibration.ranges import RANGE_RULES, START_BIN, squared_errors
from quantizer.calibration.statistics import observe
from quantizer.int8 import Scheme
from quantizer.model.float_model import read_float_model
from quantizer.model.layout import recognise
from quantizer.qdq.format import QdqFormat
from quantizer.qdq.placement import plan_placement
from service.engines.cpu import usable_threads
from service.vision.preprocess import PREPROCESS
from zoo import bundle

TARGET = Path(__file__).parent / "explanation"
SIZE = 640
TENSOR = "/backbone/stem/stem.0/stem.0.2/Mul_output_0"  # behind the first convolution
COLUMNS = 256
INK, ACCENT, GREEN, MUTED = "#1d4ed8", "#b91c1c", "#15803d", "#94a3b8"


def main() -> None:
    seen, floors = observed()
    lows = [seen[name].low for name, floor in floors.items() if floor == SILU_MINIMUM]
    print(f"{len(lows)} tensors behind a SiLU; smallest values {min(lows):.4f} to {max(lows):.4f}")
    save(histogram(seen[TENSOR]), "histogram.svg")
    save(search(seen[TENSOR]), "search.svg")


def observed() -> tuple[dict[str, Histogram], dict[str, float]]:
    """The histograms of all tensors that are quantized, and the lower bounds that are known."""
    model = read_float_model(bundle.model(), SIZE)
    layout = recognise(model, None, None, None)
    placement = plan_placement(model.graph, {}, QdqFormat())
    images = Images(find_images(bundle.CALIBRATION))
    stream = images.usable(SIZE, PREPROCESS[layout.preprocess], lambda _: None)
    seen = observe(model.graph, placement.tensors, stream, usable_threads()).histograms
    floors = lower_bounds(model.graph)
    return dict(seen), {name: floors[name] for name in seen if name in floors}


def histogram(seen: Histogram) -> Figure:
    """What the tensor's values are, and which range each rule takes at 8 bits."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    bins = seen.bins
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
        high = RANGE_RULES[rule](seen, SILU_MINIMUM, Scheme()).high
        axes.axvline(
            high, color=colour, linestyle=style, label=f"upper bound by {rule}: {high:.1f}"
        )
    axes.set_xlabel("value")
    axes.set_ylabel("how often")
    axes.legend()
    share = bins.counts[bins.centres < 0].sum() / bins.counts.sum()
    print(f"{100 * share:.0f} % of the values are negative")
    return figure


def search(seen: Histogram) -> Figure:
    """The error that UH minimises, over the upper bound, as the ratio of the signal to it."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    bins = seen.bins
    highs = bins.edges[START_BIN:]
    lows = np.full_like(highs, SILU_MINIMUM)
    signal = float(bins.counts @ np.square(bins.centres))
    for bits, colour in ((8, INK), (6, GREEN), (4, ACCENT)):
        scheme = Scheme(bits=bits)
        decibels = 10 * np.log10(signal / squared_errors(bins, lows, highs, scheme))
        high = RANGE_RULES["uh"](seen, SILU_MINIMUM, scheme).high
        best = float(decibels.max())
        axes.plot(highs, decibels, color=colour, label=f"{bits} bits")
        axes.plot(high, best, "o", color=colour)
        axes.annotate(f"{high:.1f}", (high, best), (0, 5), textcoords="offset points", ha="center")
        rivals = (RANGE_RULES[rule](seen, None, scheme).high for rule in ("percentile", "minmax"))
        told = ", ".join(
            f"{each:.1f}: {np.interp(each, highs, decibels):.1f} dB" for each in rivals
        )
        print(f"{bits} bits: UH {high:.1f}: {best:.1f} dB; percentile and MinMax {told}")
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
