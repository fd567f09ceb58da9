"""Write the pages of the site that are made from something else, so that no number stands twice.

.venv/bin/python docs/pages docs/reference

`make docs` calls it. What it writes is not committed.
"""

import shutil
import sys
from pathlib import Path

import command_line
import documents
import routes

ROOT = Path(__file__).parents[2]


def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    pages = {
        "command-line.md": command_line.page(),
        "http.md": routes.page(),
        **documents.pages(ROOT),
    }
    for name, text in pages.items():
        (target / name).write_text(text, "utf-8")
    (target / "openapi.json").write_text(routes.document(), "utf-8")
    for path in documents.pictures(ROOT):
        shutil.copy(path, target / path.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
