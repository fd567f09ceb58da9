"""Results as tables and lines for a terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from quantizer.evaluation.accuracy import Evaluation
from quantizer.report.data import Report
from qyolo.bench import PERCENTILES, Bench

if TYPE_CHECKING:  # it imports what only a build uses
    from qyolo.selftest import SelfTest


def summarise(report: Report) -> None:
    """A finished build in a few lines on stderr; stdout carries the folder's path."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    counts, calibration = report.int8_convolutions, report.calibration
    source = "held-out" if report.agreement.held_out else "calibration"
    console.print(
        f"{report.model.name}: {report.model.head} head, {report.model.classes} classes, "
        f"{report.model.size}x{report.model.size}, ranges by {report.options.ranges} from "
        f"{calibration.images} images\n"
        f"{counts.executed} of {counts.planned} quantized convolutions run in int8, "
        f"{len(report.layers) - counts.planned} convolutions stay float{_search(report)}"
    )
    for name, ms in report.ms.items():
        agreed = report.agreement.with_fp32.get(name)
        agreement = (
            f", agrees with fp32 on {agreed.matched:.1%} of the boxes in {agreed.images} {source} "
            f"images (mean IoU {agreed.mean_iou:.3f}, mean score difference "
            f"{agreed.mean_score_difference:.3f})"
            if agreed
            else ""
        )
        mark = "; the default" if name == report.default else ""
        console.print(f"{name}: {ms:.1f} ms{agreement}{mark}")
    console.print(f"built in {sum(report.seconds.values()):.1f} s")
    for warning in report.warnings:
        console.print(f"warning: {warning}")


def _search(report: Report) -> str:
    """The SQNR that the sensitivity search reached, in parentheses."""
    found = report.sensitivity
    if found is None:
        return ""
    return (
        f" (outputs at {found.reached_db:.1f} dB SQNR, {found.all_quantized_db:.1f} dB with every "
        f"layer in int8; {found.wanted_db:g} dB wanted)"
    )


def show_evaluation(result: Evaluation) -> None:
    """AP by variant, and the agreement with fp32."""
    table = Table(title=f"{result.model}: COCO AP on {result.images} images")
    for heading in ("variant", "AP", "AP50", "AP75", "small", "medium", "large"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for name, accuracy in result.variants.items():
        values = (accuracy.ap, accuracy.ap50, accuracy.ap75)
        sizes = (accuracy.ap_small, accuracy.ap_medium, accuracy.ap_large)
        table.add_row(name, *(f"{value:.4f}" for value in values + sizes))
    console = Console()
    console.print(table)
    for name, agreed in result.agreement_with_fp32.items():
        console.print(
            f"{name} agrees with fp32 on {agreed.matched:.1%} of the boxes above the serving "
            f"threshold (mean IoU {agreed.mean_iou:.3f}, mean score difference "
            f"{agreed.mean_score_difference:.3f}, largest {agreed.max_score_difference:.3f})",
            highlight=False,
        )


def show_classes(result: Evaluation) -> None:
    """AP and AP50 of each annotated class by variant, the most frequent first."""
    table = Table(title=f"{result.model}: AP / AP50 by class")
    table.add_column("class")
    table.add_column("objects", justify="right")
    for name in result.variants:
        table.add_column(name, justify="right")
    of = {name: accuracy.classes for name, accuracy in result.variants.items()}
    counts = {label: found.objects for classes in of.values() for label, found in classes.items()}
    for label, objects in sorted(counts.items(), key=lambda item: -item[1]):
        found = [classes.get(label) for classes in of.values()]
        cells = [f"{item.ap:.3f} / {item.ap50:.3f}" if item else "-" for item in found]
        table.add_row(label, str(objects), *cells)
    Console().print(table)


def show_bench(result: Bench) -> None:
    """Latency by variant."""
    table = Table(
        title=f"{result.model}: {result.rounds} rounds on a {result.image} picture, ms",
        caption="total: from pixels to boxes",
    )
    table.add_column("variant")
    for stage in ("infer", "total"):
        for rank in PERCENTILES:
            table.add_column(f"{stage} p{rank}", justify="right")
    table.add_column("speed-up", justify="right", no_wrap=True)
    for name, latency in result.variants.items():
        values = [*latency.infer_ms.values(), *latency.total_ms.values()]
        factor = result.speedup.get(name)
        table.add_row(
            name, *(f"{value:.2f}" for value in values), f"{factor:.2f}x" if factor else "-"
        )
    Console().print(table)


def show_selftest(result: "SelfTest") -> None:
    """A row for each check, then the build's times."""
    table = Table(title=f"{result.runtime}: {'passed' if result.passed else 'FAILED'}")
    for heading in ("check", "", "measured"):
        table.add_column(heading, overflow="fold")
    for check in result.checks:
        table.add_row(check.name, "ok" if check.passed else "FAILED", check.detail)
    taken = ", ".join(f"{name} {ms:.2f} ms" for name, ms in result.report.ms.items())
    console = Console(highlight=False)
    console.print(table)
    console.print(f"built in {sum(result.report.seconds.values()):.1f} s; one inference: {taken}")
