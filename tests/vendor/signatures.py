"""Signatures out of the docstrings that pybind11 and Cython write into compiled modules."""

import inspect
import re
from collections.abc import Callable, Collection
from typing import Any, Final

from tests.vendor.inventory import Parameter, Signature

CPP_NAME: Final = re.compile(r"\b(?:\w+::)+(\w+)")
ENUM_DEFAULT: Final = re.compile(r"<([\w.]+): -?\d+>")
TEMPLATE: Final = re.compile(r"[\w:]+<[^<>]*>")
NUMBERED: Final = re.compile(r"^\d+\. ")
OVERLOAD: Final = re.compile(r"\w*\((.*)\) -> (.+)")
UNNAMED: Final = re.compile(r"arg\d+")  # how pybind11 calls what has no name
ROLE: Final = re.compile(r":py:obj:`~\.(\w+)`")
RETURNED: Final = re.compile(r"\nReturns\n-+\n(.*?)(?:\n\n|\Z)", re.S)
FIELD: Final = re.compile(r"^\S.*$", re.M)


def pybind_signatures(
    doc: str, module: str, classes: Collection[str], static: bool = False
) -> tuple[Signature, ...]:
    """Every overload; a type of the module is called as in `classes`, an unknown one object."""
    lines = doc.strip().splitlines()
    if len(lines) > 1 and lines[1] == "Overloaded function.":
        lines = [NUMBERED.sub("", line) for line in lines if NUMBERED.match(line)]
    else:
        lines = lines[:1]
    return tuple(_pybind_signature(_plain(line, module, classes), static) for line in lines)


def _plain(line: str, module: str, classes: Collection[str]) -> str:
    """With neither module names nor C++ in it, which pybind11 writes of what it binds later."""

    def python_name(found: re.Match[str]) -> str:
        candidates = (found[1], found[1].removeprefix("I"))
        return next((name for name in candidates if name in classes), "object")

    text = ENUM_DEFAULT.sub(r"\1", line.replace(f"{module}.", ""))
    return CPP_NAME.sub(python_name, TEMPLATE.sub("object", text))


def _pybind_signature(text: str, static: bool) -> Signature:
    found = OVERLOAD.fullmatch(text)
    assert found is not None, text
    written = split_top(found[1])
    unnamed = written.index("/") if "/" in written else 0
    parameters = tuple(
        _pybind_parameter(each, index < unnamed)
        for index, each in enumerate(written)
        if each != "/"
    )
    return Signature(parameters if static else parameters[1:], found[2])


def _pybind_parameter(text: str, unnamed: bool) -> Parameter:
    declared, _, default = text.partition(" = ")
    name, _, kind = declared.partition(": ")
    positional_only = unnamed or UNNAMED.fullmatch(name) is not None
    return Parameter(name, kind, default or None, positional_only)


def cython_signature(function: Callable[..., Any]) -> Signature:
    """Of a function of cuda-python, which returns its error and then its values."""
    line, _, rest = (function.__doc__ or "").partition("\n")
    written = split_top(line[line.index("(") + 1 : line.rindex(")")])
    parameters = tuple(
        _cython_parameter(parameter, text)
        for parameter, text in zip(
            inspect.signature(function).parameters.values(), written, strict=True
        )
    )
    section = RETURNED.search(ROLE.sub(r"\1", rest))
    fields = FIELD.findall(section[1]) if section else []
    values = [each.rpartition(" : ")[2] for each in fields[1:]]
    # cudaMemcpy documents no value; all return the error but for sizeof, which we do not call.
    return Signature(parameters, f"tuple[{', '.join(['cudaError_t', *values])}]")


def _cython_parameter(parameter: inspect.Parameter, text: str) -> Parameter:
    """The type stands before the name, as in C, or after a colon, or is not told."""
    before, after = re.split(rf"\b{parameter.name}\b", text, maxsplit=1)
    kind = after.removeprefix(":").strip() if after.startswith(":") else before.strip(" *")
    default = None if parameter.default is parameter.empty else repr(parameter.default)
    return Parameter(parameter.name, kind or "object", default)


def split_top(text: str) -> list[str]:
    """At the commas that no bracket encloses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
