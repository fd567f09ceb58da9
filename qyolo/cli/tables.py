"""Results as tables and lines for a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from quantizer.evaluation.accuracy import Accuracy, Evaluation
from quantizer.report.data import Report
from qyolo.bench import PERCENTILES, Bench
from service.vision.agreement import Agreement

if TYPE_CHECKING:  # it imports packages that only a build uses
    from qyolo.paper import PaperRow
    from qyolo.selftest import SelfTest

AP: Final = ("AP", "AP50", "AP75", "small", "medium", "large")  # headings; sizes are of objects


def summarise(report: Report) -> None:
    """A finished build in a few lines on stderr; stdout carries the folder's path."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    counts, calibration = report.int8_convolutions, report.calibration
    chosen = " (chosen from the calibration images)" if report.options.size == "auto" else ""
    source = "held-out" if report.agreement.held_out else "calibration"
    console.print(
        f"{report.model.name}: {report.model.head} head, {report.model.classes} classes, "
        f"{report.model.width}x{report.model.height}{chosen}, "
        f"ranges by {report.options.ranges} from {calibration.images} images\n"
        f"{counts.executed} of {counts.planned} quantized convolutions run in int8, "
        f"{len(report.layers) - counts.planned} convolutions stay float{_search(report)}"
    )
    for name in report.bytes:
        agreed = report.agreement.with_fp32.get(name)
        agreement = f", {_agrees(agreed, f'{source} images')}" if agreed else ""
        mark = "; the default" if name == report.default else ""
        taken = (
            f"{report.ms[name]:.1f} ms" if report.ms else f"for {', '.join(report.options.target)}"
        )
        console.print(f"{name}: {taken}{agreement}{mark}")
    console.print(f"built in {sum(report.seconds.values()):.1f} s")
    for warning in report.warnings:
        console.print(f"warning: {warning}")


def _search(report: Report) -> str:
    """What the sensitivity search reached, in parentheses."""
    search = report.sensitivity
    if search is None:
        return ""
    if search.frontier:
        first, last = search.frontier[0], search.frontier[-1]
        every = f", {first.loss:.3f} with every layer in int8" if len(search.frontier) > 1 else ""
        return (
            f" (predicted loss of detections {last.loss:.3f}{every}; {search.max_loss:g} allowed)"
        )
    return (
        f" (outputs at {search.reached_db:.1f} dB SQNR, {search.all_quantized_db:.1f} dB with "
        f"every layer in int8; {search.wanted_db:g} dB required)"
    )


def _agrees(agreed: Agreement, images: str) -> str:
    return (
        f"agrees with fp32 on {agreed.matched:.1%} of the boxes in {agreed.images} {images} "
        f"(mean IoU {agreed.mean_iou:.3f}, mean score difference "
        f"{agreed.mean_score_difference:.3f}, largest {agreed.max_score_difference:.3f})"
    )


def ap_figures(accuracy: Accuracy) -> list[str]:
    """The numbers under the headings `AP`."""
    values = (accuracy.ap, accuracy.ap50, accuracy.ap75)
    sizes = (accuracy.ap_small, accuracy.ap_medium, accuracy.ap_large)
    return [f"{value:.4f}" for value in values + sizes]


def show_evaluation(result: Evaluation) -> None:
    """AP by variant, and the agreement with fp32."""
    table = _numbers(f"{result.model}: COCO AP on {result.images} images", "variant", *AP)
    for name, accuracy in result.variants.items():
        table.add_row(name, *ap_figures(accuracy))
    console = Console(highlight=False)
    console.print(table)
    for name, agreed in result.agreement_with_fp32.items():
        console.print(f"{name} {_agrees(agreed, 'images, at the serving threshold')}")


def show_classes(result: Evaluation) -> None:
    """AP and AP50 of each annotated class by variant, the most frequent first."""
    title = f"{result.model}: AP / AP50 by class"
    table = _numbers(title, "class", "objects", *result.variants)
    columns = [accuracy.classes for accuracy in result.variants.values()]
    counts = {label: item.objects for classes in columns for label, item in classes.items()}
    for label, objects in sorted(counts.items(), key=lambda item: -item[1]):
        row = [classes.get(label) for classes in columns]
        cells = [f"{item.ap:.3f} / {item.ap50:.3f}" if item else "-" for item in row]
        table.add_row(label, str(objects), *cells)
    Console().print(table)


def show_bench(result: Bench) -> None:
    """Latency by variant, from pixels to boxes as `total`."""
    percentiles = (f"{stage} p{rank}" for stage in ("infer", "total") for rank in PERCENTILES)
    title = f"{result.model}: {result.rounds} rounds on an image of {result.image}, ms"
    table = _numbers(title, "variant", *percentiles, "speed-up")
    table.caption = "total: from pixels to boxes"
    for name, latency in result.variants.items():
        values = [*latency.infer_ms.values(), *latency.total_ms.values()]
        factor = result.speedup.get(name)
        speedup = f"{factor:.2f}x" if factor else "-"
        table.add_row(name, *(f"{value:.2f}" for value in values), speedup)
    Console().print(table)


def _numbers(title: str, first: str, *headings: str) -> Table:
    """A table whose first column is text; the others are numbers."""
    table = Table(title=title)
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


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
    if result.paper:
        console.print(paper_table(result.paper))


def paper_table(rows: "Sequence[PaperRow]") -> Table:
    """The paper's speed table, measured here, with the paper's own fp32 and int8 beside it."""
    variants = list(dict.fromkeys(name for row in rows for name in row.ms))
    gpus = list(dict.fromkeys(gpu for row in rows for gpu in row.published_ms))
    headings = ["GMAC", "in int8 kernels", *(f"{name} ms" for name in variants)]
    headings += [f"{name} MB" for name in variants] + [f"paper, {gpu}" for gpu in gpus]
    table = _numbers("the paper's models, one 640x640 image", "model", *headings)
    for row in rows:
        published = (row.published_ms.get(gpu) for gpu in gpus)
        table.add_row(
            row.model,
            f"{row.gmac:.2f}",
            f"{row.int8_share:.0%}",
            *(f"{row.ms[name]:.2f}" if name in row.ms else "-" for name in variants),
            *(f"{row.moved_mb[name]:.0f}" if name in row.moved_mb else "-" for name in variants),
            *(f"{each[0]} / {each[1]}" if each else "-" for each in published),
        )
    return table
