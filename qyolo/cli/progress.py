"""Progress bars on a terminal; nothing elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console
from rich.text import Text

from service.progress import Progress, ReportProgress


class Amount(bars.MofNCompleteColumn):
    """The bytes of a download in MB; other phases count their own units."""

    def render(self, task: bars.Task) -> Text:
        if task.description != "download":
            return super().render(task)
        total = f"{task.total / 1e6:.1f}" if task.total else "?"
        return Text(f"{task.completed / 1e6:.1f}/{total} MB")


@contextmanager
def progress_bars() -> Iterator[ReportProgress]:
    """A reporter that draws a bar for each phase on stderr, until the block ends."""
    console = Console(stderr=True)
    columns = (
        bars.TextColumn("{task.description:<10}"),
        bars.BarColumn(),
        Amount(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    shown = bars.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    )
    tasks: dict[str, bars.TaskID] = {}

    def report(step: Progress) -> None:
        if step.phase not in tasks:
            tasks[step.phase] = shown.add_task(step.phase)
        shown.update(tasks[step.phase], completed=step.done, total=step.total or None)

    with shown:
        yield report
