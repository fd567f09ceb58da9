"""The official detectors that one word builds: who made them, under which licence, how good."""

import tomllib
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, StringConstraints, TypeAdapter

from zoo.errors import UnknownModel

FILE: Final = Path(__file__).parent / "catalogue.toml"

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class Entry(BaseModel):
    """One official model; what is not known for certain is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern="^[a-z0-9_-]+$")]
    publisher: str
    task: Literal["detect"] = "detect"
    licence: str  # SPDX
    address: HttpUrl  # of one release, never of a branch
    input: int  # pixels of the side that it was made for
    ap: float | None = None  # COCO val2017 AP as published, in percent
    params_m: float
    bytes: int | None = Field(default=None, gt=0)
    sha256: Sha256 | None = None
    export: str | None = None  # how to make the ONNX file where only a pickle is published

    @property
    def copyleft(self) -> bool:
        """Whether serving it over a network obliges to offer the source (AGPL)."""
        return self.licence.startswith("AGPL")

    @property
    def file_name(self) -> str:
        return str(self.address).rpartition("/")[2]


@cache
def catalogue() -> tuple[Entry, ...]:
    """All entries, in the order of the file."""
    listed = tomllib.loads(FILE.read_text(encoding="utf-8"))["model"]
    return tuple(TypeAdapter(list[Entry]).validate_python(listed))


def entry(name: str) -> Entry:
    """Raises UnknownModel with the names that come near."""
    by_name = {item.name: item for item in catalogue()}
    if name in by_name:
        return by_name[name]
    near = get_close_matches(name, by_name, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`qyolo models` lists the names"
    raise UnknownModel(f"{name} is neither a file nor a model of the catalogue; {hint}")
