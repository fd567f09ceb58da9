"""The --help text of every command, as one page."""

from collections import defaultdict
from collections.abc import Iterator

import typer

from qyolo.cli.commands import app


def page() -> str:
    group = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        group.help,
        "",
        "A command-line option overrides its environment variable. Exit code 2 is an error that "
        "you can fix, reported in one line; 1 is an internal error. `--debug` before the command "
        "shows the traceback.",
        "",
    ]
    for name, command in group.commands.items():
        lines += [f"## qyolo {name}", "", *_command(name, command), ""]
    return "\n".join(lines)


def environment_options() -> list[tuple[str, object, str]]:
    """Variable, default and meaning of the options that are read from the environment."""
    commands = typer.main.get_command(app).commands.values()
    options = [each for command in commands for each in command.params if each.envvar]
    return sorted({(each.envvar, each.default, each.help) for each in options})


def cell(text: str) -> str:
    """In a table every bar ends a cell, even between backticks; [...] must not look like a link."""
    return " ".join(text.replace("|", "\\|").replace("[", "\\[").split())


def prose(text: str) -> str:
    """A cell outside backticks, where <...> must not look like HTML, nor * like emphasis."""
    return cell(text).replace("<", "&lt;").replace("*", "\\*")


def _command(name: str, command: typer.core.TyperCommand) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    parameters = [each for each in command.get_params(context) if each.name != "help"]
    pieces = [piece for each in parameters for piece in each.get_usage_pieces(context)]
    yield from ("```sh", f"qyolo {' '.join([name, '[OPTIONS]', *pieces])}", "```", "")
    yield from (command.help, "")
    panels = defaultdict(list)
    for each in parameters:
        names, text = each.get_help_record(context)
        panels[each.rich_help_panel or "General"].append(f"| `{cell(names)}` | {prose(text)} |")
    for panel, rows in panels.items():
        yield from (f"| {panel} | |", "|---|---|", *rows, "")
