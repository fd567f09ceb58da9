"""The compose files as Docker Compose reads them."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def read(name: str, **variables: str) -> dict:
    """With the defaults of the variables that are not given."""

    def value(match: re.Match[str]) -> str:
        variable, kind, default = match.groups()
        return variables.get(variable, default if kind == "-" else "")

    text = (ROOT / name).read_text(encoding="utf-8")
    return yaml.safe_load(VARIABLE.sub(value, text))


def variables(name: str) -> set[str]:
    return {found[0] for found in VARIABLE.findall((ROOT / name).read_text(encoding="utf-8"))}
