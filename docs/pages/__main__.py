"""Write the pages that are generated from the code, and copy those from other folders.

.venv/bin/python docs/pages docs/reference

`make docs` runs it. The pages are not committed.
"""

import re
import shutil
import sys
from pathlib import Path
from typing import Final

import command_line
import http_api
import metrics
import settings

ROOT: Final = Path(__file__).parents[2]
COPIES: Final = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "zoo/qyolo_nano/CARD.md": "qyolo-nano.md",
}
RELATIVE_LINK: Final = re.compile(r"(!?)\[([^\[\]]*)\]\((?!\w+:)([^()\s]+)\)")


def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    pages = {
        "command-line.md": command_line.page(),
        "http.md": http_api.page(),
        "metrics.md": metrics.page(),
        "settings.md": settings.page(),
        "openapi.json": http_api.document(),
    }
    for name, text in pages.items():
        (target / name).write_text(text, "utf-8")
    for source, name in COPIES.items():
        _copy(ROOT / source, target / name)


def _copy(source: Path, target: Path) -> None:
    """Copy a document with its images; its links to other files become plain text."""

    def relinked(link: re.Match[str]) -> str:
        image, words, path = link.groups()
        if not image:
            return words
        shutil.copy(source.parent / path, target.parent)
        return f"![{words}]({Path(path).name})"

    target.write_text(RELATIVE_LINK.sub(relinked, source.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
