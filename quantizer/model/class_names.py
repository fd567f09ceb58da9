"""The names of a model's classes: from a file, from the exporter's metadata, or made."""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quantizer.errors import BadOption, UnsupportedModel
from quantizer.model.coco_names import COCO_NAMES


@dataclass(frozen=True, slots=True)
class Names:
    """Class names, and where they come from."""

    names: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class ClassNames:
    """The names of all classes, and what was assumed for them."""

    names: tuple[str, ...]
    assumptions: tuple[str, ...] = ()


def given_names(metadata: Mapping[str, str], file: Path | None) -> Names | None:
    """From the file, else from the exporter's metadata; raises BadOption, UnsupportedModel."""
    if file is not None:
        return Names(_names_in(file), str(file))
    if "names" in metadata:
        return Names(_names_in_metadata(metadata["names"]), "the model's metadata")
    return None


def class_names(given: Names | None, columns: int | None, channels: int | None) -> ClassNames:
    """The names of all classes: those given, COCO's 80, or numbers for names.

    columns: those of the output that hold a class, None for an end-to-end head; channels: those of
    its maps, where they are known. An end-to-end head may have more classes than names. Raises
    BadOption.
    """
    if given is not None:
        if columns not in (None, len(given.names)):
            raise BadOption(
                "classes",
                f"must be a file with {columns} names, one on each line: the model has {columns} "
                f"classes, {given.source} names {len(given.names)}",
            )
        return ClassNames(given.names)
    count = columns or channels
    if count in (None, len(COCO_NAMES)):
        return ClassNames(COCO_NAMES)
    numbered = tuple(f"class_{index}" for index in range(count))
    all_of_them = " to ".join(dict.fromkeys((numbered[0], numbered[-1])))
    assumption = (
        f"the file does not name the classes, so they are {all_of_them}; --classes FILE names "
        "them, one on each line"
    )
    return ClassNames(numbered, (assumption,))


def _names_in(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadOption(
            "classes", f"{file}: cannot be read as text with one name on each line"
        ) from exc
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise BadOption("classes", f"{file}: contains no name; it must have one on each line")
    return names


def _names_in_metadata(text: str) -> tuple[str, ...]:
    """Ultralytics writes a Python dict or list of names, others write JSON."""
    try:
        try:
            value = json.loads(text)
        except ValueError:
            value = ast.literal_eval(text)
        names = [value[key] for key in sorted(value, key=int)] if isinstance(value, dict) else value
        return tuple(map(str, [*names]))
    except (ValueError, SyntaxError, TypeError) as exc:
        raise UnsupportedModel(
            f"the metadata's class names are unreadable: {text[:60]}; --classes FILE names them, "
            "one on each line"
        ) from exc
