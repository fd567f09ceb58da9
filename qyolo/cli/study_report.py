"""A study as Markdown tables and as a chart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from quantizer.calibration.ranges import RangeRule
from quantizer.study.settings import AS_THE_PAPER, BEST_WEIGHTS, BETTER_WEIGHTS, WeightMethod
from quantizer.study.study import Study
from qyolo.cli.tables import AP, ap_figures

RULES: Final[dict[RangeRule, str]] = {
    "minmax": "MinMax",
    "percentile": "Percentile",
    "mse": "MSE",
    "entropy": "Entropy",
    "uh": "UH (Q-YOLO)",
}

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, heading, rows


def write_study(study: Study, folder: Path) -> tuple[Path, ...]:
    """Write study.md, study.json and study.svg into the folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"study.{kind}" for kind in ("md", "json", "svg"))
    paths[0].write_text(as_markdown(study), "utf-8")
    paths[1].write_text(study.to_json(), "utf-8")
    chart(study).savefig(paths[2], bbox_inches="tight", metadata={"Date": None})
    return paths


def as_markdown(study: Study) -> str:
    """The paper's tables 1 to 3, then activations alone and better methods for the weights."""
    lines = [
        f"# {study.model}, quantized in simulation",
        "",
        f"COCO AP on {study.images} images; ranges from {study.calibration_images} calibration "
        "images; SQNR is the outputs' signal-to-noise ratio. "
        f"Bits are those of weights and activations; {len(study.kept_float)} convolutions "
        "(first and last) stay float. Weights: MinMax, symmetric, by channel, unless noted.",
    ]
    for table in (_ranges, _symmetry, _parts, _activations_alone, _weights):
        title, heading, rows = table(study)
        lines += ["", f"## {title}", "", *_markdown_table(heading, rows)]
    return "\n".join([*lines, ""])


def _bits(study: Study) -> list[int]:
    """The widths that were studied, widest first."""
    bits = {r.setting.activations for r in study.results if r.setting.activations}
    return sorted(bits, reverse=True)


def _ranges(study: Study) -> Table:
    results = {("float", "32-32"): study.of()}
    for b in _bits(study):
        for rule, name in RULES.items():
            results[name, f"{b}-{b}"] = study.of(weights=b, activations=b, ranges=rule)
    rows = [
        (*names, *ap_figures(each.accuracy), f"{each.sqnr:.1f}")
        for names, each in results.items()
        if each is not None
    ]
    heading = ("method", "bits", *AP, "SQNR dB")
    return "Ranges of the activations (the paper's table 1)", heading, rows


def _symmetry(study: Study) -> Table:
    rows = [
        (name, f"{b}-{b}", *(_ap(study, b, b, ranges=rule, symmetric=s) for s in (False, True)))
        for b in _bits(study)
        for rule, name in RULES.items()
    ]
    heading = ("method", "bits", "asymmetric AP", "symmetric AP")
    return "Asymmetric against symmetric activations (table 2)", heading, rows


def _parts(study: Study) -> Table:
    rows = [
        (str(b), _ap(study, b, None), _ap(study, None, b), _ap(study, b, b)) for b in _bits(study)
    ]
    heading = ("bits", "weights only", "activations only", "both")
    return "Weights, activations, both (table 3; UH)", heading, rows


def _activations_alone(study: Study) -> Table:
    bits = _bits(study)
    rows = [
        (name, *(_ap(study, None, b, ranges=rule) for b in bits)) for rule, name in RULES.items()
    ]
    return "Activations alone, by every rule", ("method", *(f"32-{b}" for b in bits)), rows


def _weights(study: Study) -> Table:
    settings: dict[str, dict[str, object]] = {
        **{_title(method): {"method": method} for method in (AS_THE_PAPER, *BETTER_WEIGHTS)},
        "the last, with Percentile": {"method": BEST_WEIGHTS, "ranges": "percentile"},
        "as the paper, activations float": {"activations": None},
        "the best weights, activations float": {"method": BEST_WEIGHTS, "activations": None},
    }
    bits, rows = _bits(study), []
    for title, setting in settings.items():
        results = (study.of(**{"weights": b, "activations": b} | setting) for b in bits)
        cells = (f"{each.accuracy.ap:.4f} ({each.sqnr:.1f})" if each else "" for each in results)
        rows.append((title, *cells))
    heading = ("weights", *(f"{b}-{b}" for b in bits))
    return "Better weights (UH unless noted; AP, and SQNR in dB)", heading, rows


def _title(method: WeightMethod) -> str:
    if method == AS_THE_PAPER:
        return "as the paper: MinMax, to the nearest"
    words = {
        "clipped at the least error": method.clipping == "mse",
        "biases corrected": method.bias_correction,
        "rounded adaptively": method.rounding == "adaptive",
    }
    return ", ".join(word for word, applies in words.items() if applies)


def chart(study: Study) -> Figure:
    """AP over bits, a line for each rule, asymmetric activations."""
    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    bits = _bits(study)
    float_model = study.of()
    if float_model is not None:
        axes.axhline(float_model.accuracy.ap, color="0.6", linestyle="--", label="float")
    for rule, name in RULES.items():
        results = [study.of(weights=b, activations=b, ranges=rule) for b in bits]
        axes.plot(
            [str(b) for b in bits],
            [result.accuracy.ap if result else float("nan") for result in results],
            marker="o",
            label=name,
            linewidth=2.2 if rule == "uh" else 1.2,
        )
    axes.set_xlabel("bits of weights and activations")
    axes.set_ylabel("COCO AP")
    axes.set_title(f"{study.model}: ranges of the activations, {study.images} images")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _ap(study: Study, weights: int | None, activations: int | None, **others: object) -> str:
    """Empty if the setting was not measured."""
    result = study.of(weights=weights, activations=activations, **others)
    return "" if result is None else f"{result.accuracy.ap:.4f}"


def _markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows)]
