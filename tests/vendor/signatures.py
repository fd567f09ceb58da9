"""Signatures out of the docstrings that pybind11 and Cython write into compiled modules."""

import ast
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

NUMBERED: Final = re.compile(r"^\d+\. (.+)")
ENUM_DEFAULT: Final = re.compile(r"<([\w.]+): -?\d+>")
TEMPLATE: Final = re.compile(r"[\w:]+<[^<>]*>")
CPP_NAME: Final = re.compile(r"\b(?:\w+::)+(\w+)")
RETURNED: Final = re.compile(r"\nReturns\n-+\n(.*?)(?:\n\n|\Z)", re.S)


@dataclass(frozen=True, slots=True)
class Parameter:
    """`positional_only`: pybind11 gave it no name."""

    name: str
    type: str
    optional: bool = False
    positional_only: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """One overload, without self; `values`: how many a CUDA function returns after its error."""

    parameters: tuple[Parameter, ...]
    returns: str = "object"
    values: int = 0

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The argument of each parameter; None where their count or their names do not fit."""
        if len(args) > len(self.parameters):
            return None
        bound = dict(zip((each.name for each in self.parameters), args, strict=False))
        named = {each.name for each in self.parameters if not each.positional_only}
        if not kwargs.keys() <= named - bound.keys():
            return None
        bound |= kwargs
        needed = {each.name for each in self.parameters if not each.optional}
        return bound if needed <= bound.keys() else None


def pybind_signatures(doc: str, classes: Collection[str]) -> tuple[Signature, ...]:
    """Every overload of a method; types that are not in `classes` or Python's are object."""
    lines = doc.strip().splitlines()
    if lines[1:2] == ["Overloaded function."]:
        overloads = [found[1] for line in lines if (found := NUMBERED.match(line))]
    else:
        overloads = lines[:1]
    return tuple(_pybind_signature(line, classes) for line in overloads)


def _pybind_signature(line: str, classes: Collection[str]) -> Signature:
    def python_name(found: re.Match[str]) -> str:  # pybind11 writes C++ for what it binds later
        names = (found[1], found[1].removeprefix("I"))
        return next((name for name in names if name in classes), "object")

    text = ENUM_DEFAULT.sub(r"\1", re.sub(r"\btensorrt_bindings\.tensorrt\.", "", line))
    text = CPP_NAME.sub(python_name, TEMPLATE.sub("object", text))
    (function,) = ast.parse(re.sub(r"^\w*\(", "def f(", text) + ": ...").body
    assert isinstance(function, ast.FunctionDef)
    arguments = [*function.args.posonlyargs, *function.args.args]
    first_optional = len(arguments) - len(function.args.defaults)
    parameters = [
        Parameter(
            each.arg,
            ast.unparse(each.annotation) if each.annotation else "object",
            index >= first_optional,
            each in function.args.posonlyargs or re.fullmatch(r"arg\d+", each.arg) is not None,
        )
        for index, each in enumerate(arguments)
    ]
    assert function.returns is not None
    return Signature(tuple(parameters[1:]), ast.unparse(function.returns))


def cython_signature(function: Callable[..., Any]) -> Signature:
    """Of a function of cuda-python: its docstring has the types and the returned values."""
    line, _, rest = (function.__doc__ or "").partition("\n")
    written = line[line.index("(") + 1 : line.rindex(")")].split(",")
    parameters = inspect.signature(function).parameters.values()
    typed = tuple(
        Parameter(each.name, _cython_type(each.name, text), each.default is not each.empty)
        for each, text in zip(parameters, written if parameters else (), strict=True)
    )
    section = RETURNED.search(rest)
    fields = re.findall(r"^\S.*$", section[1], re.M) if section else []
    return Signature(typed, values=len(fields[1:]))  # the first is the error


def _cython_type(name: str, text: str) -> str:
    """The type stands before the name, as in C, or after a colon, or is missing."""
    before, after = re.split(rf"\b{name}\b", text, maxsplit=1)
    kind = after.removeprefix(":").strip() if after.startswith(":") else before.strip(" *")
    return kind or "object"
