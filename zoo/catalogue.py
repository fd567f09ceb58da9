"""The official detectors that can be built by name: publisher, licence, address, accuracy."""

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
    """One official model; None: not known for certain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern="^[a-z0-9_-]+$")]
    publisher: str
    task: Literal["detect"] = "detect"
    licence: str  # SPDX
    address: HttpUrl  # of a release, never of a branch
    input: int  # side in pixels at which it was trained
    ap: float | None = None  # on COCO val2017 as published, in percent
    params_m: float
    bytes: int | None = Field(default=None, gt=0)
    sha256: Sha256 | None = None
    export: str | None = None  # command that makes the ONNX file, if only a pickle is published

    @property
    def copyleft(self) -> bool:
        """Whether a service over a network must offer its source (AGPL)."""
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
    """The entry of a name; raises UnknownModel, whose text suggests similar names."""
    by_name = {item.name: item for item in catalogue()}
    if name in by_name:
        return by_name[name]
    near = get_close_matches(name, by_name, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`qyolo models` lists the names"
    raise UnknownModel(f"{name} is neither a file nor a model of the catalogue; {hint}")
