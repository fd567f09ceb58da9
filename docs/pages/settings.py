"""Every setting with its default and meaning, as one page."""

from collections.abc import Iterator
from typing import Final

from command_line import environment_options, prose

from service.settings import Settings

HEAD: Final = """# Settings

The environment is read once, at start-up; a command-line option overrides it.

"""
TABLE: Final = ("| variable | default | meaning |", "|---|---|---|")
ELSEWHERE: Final = (
    ("CACHE_DIR", "~/.cache/qyolo", "folder of builds and downloaded models"),
    ("MIRROR", "None", "server to download the official detectors from, instead of theirs"),
)


def page() -> str:
    return HEAD + "\n".join(
        [
            "## The server\n",
            *TABLE,
            *_server(),
            "\n## The command line\n",
            *TABLE,
            *(_row(*each) for each in ELSEWHERE),
            *(_row(*each) for each in environment_options()),
            "",
        ]
    )


def _server() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        yield _row(name.upper(), field.default, field.description or "")


def _row(name: str, default: object, meaning: str) -> str:
    return f"| `QYOLO_{name.removeprefix('QYOLO_')}` | `{default}` | {prose(meaning)} |"
