"""Sections of the README, and other documents of the repository, as pages of the site.

Their links are turned towards the site; one that leads to what is not in it becomes plain text.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

SECTIONS: Final = {  # heading of the README -> page
    "Settings": "settings.md",
    "The server": "server.md",
    "A/B": "ab.md",
    "In production": "production.md",
    "Other clients": "clients.md",
    "What it does": "build.md",
    "Results": "results.md",
    "Limits, said plainly": "limits.md",
}
FILES: Final = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "zoo/qyolo_nano/CARD.md": "qyolo-nano.md",
}
FOLDER: Final = "docs/reference"  # of the pages, for links
LINK: Final = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)")
FENCE: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def pages(root: Path) -> dict[str, str]:
    """Page -> text."""
    readme = (root / "README.md").read_text("utf-8")
    made = {page: _section(readme, heading) for heading, page in SECTIONS.items()}
    homes = {slug: page for page, text in made.items() for slug in _slugs(text)}
    made = {page: _relinked(root, text, "", homes) for page, text in made.items()}
    for source, page in FILES.items():
        text = (root / source).read_text("utf-8")
        made[page] = _relinked(root, text, str(Path(source).parent), {})
    return made


def pictures(root: Path) -> set[Path]:
    """The images that the pages show and that are not in docs/."""
    found = set()
    for page in ("README.md", *FILES):
        for _, _, target in LINK.findall((root / page).read_text("utf-8")):
            path = (root / page).parent / target
            if path.suffix in {".jpg", ".png", ".svg"} and root / "docs" not in path.parents:
                found.add(path)
    return found


def _section(readme: str, heading: str) -> str:
    """The section, its heading on the first level, without those that have pages of their own."""
    found = re.search(
        rf"^(##+) {re.escape(heading)}\n.*?(?=^##(?!#)|\Z)", readme, re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise SystemExit(f"docs/pages/documents.py: the README has no section {heading!r}")
    depth = len(found[1])
    own_pages = "|".join(re.escape(each) for each in SECTIONS if each != heading)
    text, *_ = re.split(
        rf"^(?:#{{2,{depth}}} (?!{re.escape(heading)}\n)|##+ (?:{own_pages})\n)",
        found[0],
        flags=re.MULTILINE,
    )
    return _outside_code(
        text, lambda part: re.sub(rf"^#{{{depth - 1}}}(?=#)", "", part, flags=re.M)
    )


def _relinked(root: Path, text: str, folder: str, homes: dict[str, str]) -> str:
    def turned(link: re.Match[str]) -> str:
        image, words, target = link.groups()
        path, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):
            return link[0]
        if not path:
            home = homes.get(anchor)
            return f"[{words}]({home}#{anchor})" if home else words
        source = os.path.normpath(Path(folder, path))
        if image and not source.startswith("docs/"):
            return f"![{words}]({Path(source).name})"
        if source.startswith("docs/") and (root / source).suffix != ".py":
            return f"{image}[{words}]({os.path.relpath(source, FOLDER)})"
        if source in FILES:
            return f"[{words}]({FILES[source]})"
        return f"{words} (`{source}`)"

    return _outside_code(text, lambda part: LINK.sub(turned, part))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def _slugs(text: str) -> list[str]:
    """Of the headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in headings]
