"""Prints what a compiled module offers as JSON. Run by itself: python -I -S probe.py FOLDER NAME.

Nothing of ours or of the site is imported, so that only the module in the folder can be found.
"""

import ctypes
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

INHERITED = ("__doc__", "__module__", "__hash__", "__dict__", "__weakref__")
_has_buffer = ctypes.pythonapi.PyObject_CheckBuffer
_has_buffer.argtypes = [ctypes.py_object]


def describe(module: ModuleType) -> dict[str, Any]:
    """Docstrings of functions and methods are handed on as they are."""
    classes = {name: each for name, each in public(module) if inspect.isclass(each)}
    functions = {name: each for name, each in public(module) if inspect.isroutine(each)}
    python = {name: each for name, each in functions.items() if inspect.isfunction(each)}
    values = {
        name: constant(each)
        for name, each in public(module)
        if constant(each) is not None and name not in classes
    }
    return {
        "version": module.__version__,
        "classes": {
            each.__qualname__: describe_class(each)
            for top in classes.values()
            for each in (top, *nested(top))
        },
        "functions": {name: each.__doc__ for name, each in functions.items() if name not in python},
        "python": {name: described(each) for name, each in python.items()},
        "sources": {name: inspect.getsource(each) for name, each in python.items()},
        "constants": values,
    }


def public(owner: Any) -> Iterator[tuple[str, Any]]:
    return ((name, each) for name, each in vars(owner).items() if not name.startswith("_"))


def nested(kind: type) -> list[type]:
    return [
        each
        for _, each in public(kind)
        if inspect.isclass(each) and each.__qualname__.startswith(f"{kind.__qualname__}.")
    ]


def describe_class(kind: type) -> dict[str, Any]:
    members = getattr(kind, "__members__", {})
    made: dict[str, Any] = {
        "bases": [base.__qualname__ for base in kind.__bases__],
        "methods": {},
        "python": {},
        "static": [],
        "properties": {},
        "members": {name: int(each) for name, each in members.items()},
        "constants": {},
        "buffer": not members and bool(_has_buffer(kind.__new__(kind))),
    }
    for name, each in vars(kind).items():
        if name in INHERITED or name in members or name.startswith(("__pybind", "_pybind")):
            continue
        if type(each) is property:  # and not pybind11's static one
            made["properties"][name] = [text(each.fget), text(each.fset)]
        elif isinstance(each, staticmethod):
            made["methods"][name] = each.__func__.__doc__
            made["static"].append(name)
        elif inspect.isfunction(each):
            made["python"][name] = described(each)
        elif type(each).__name__ == "instancemethod":
            made["methods"][name] = each.__doc__
        elif (value := constant(getattr(kind, name))) is not None:
            made["constants"][name] = value
    return made


def text(accessor: Any) -> str | None:
    """The docstring of a property's accessor, "" where it has none, None where there is none."""
    return None if accessor is None else accessor.__doc__ or ""


def constant(value: Any) -> str | int | None:
    """An int or the full name of an enum's member or of a class, which say what they are."""
    if isinstance(value, int):
        return int(value)
    if inspect.isclass(value) and value.__module__.startswith(NAME):
        return value.__qualname__
    if hasattr(type(value), "__members__"):
        return f"{type(value).__qualname__}.{value.name}"
    return None


def described(function: Any) -> list[list[str | None]]:
    """Name and default of every parameter."""
    parameters = inspect.signature(function).parameters.values()
    return [
        [each.name, None if each.default is each.empty else repr(each.default)]
        for each in parameters
    ]


if __name__ == "__main__":
    FOLDER, NAME = sys.argv[1:]
    sys.path.insert(0, FOLDER)
    json.dump(describe(importlib.import_module(NAME)), sys.stdout)
