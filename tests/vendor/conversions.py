"""Whether a value passes as a type of a signature, as pybind11 and Cython convert arguments."""

from collections.abc import Callable, Mapping
from typing import Any


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__")  # nothing is rounded; numpy's integers will do


def _is_float(value: Any) -> bool:
    return hasattr(value, "__float__") or _is_integer(value)


def _is_buffer(value: Any) -> bool:
    """Whether bytes() copies its memory; the fake of a buffer has __bytes__."""
    if hasattr(value, "__bytes__"):
        return True
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


def _is_integers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_integer, value))


BUILT_IN: Mapping[str, Callable[[Any], bool]] = {
    "None": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "collections.abc.Sequence[typing.SupportsInt]": _is_integers,
    "int": _is_integer,
    "object": lambda value: True,
    "size_t": _is_integer,
    "slice": lambda value: isinstance(value, slice),
    "str": lambda value: isinstance(value, (str, bytes)),
    "typing.SupportsFloat": _is_float,
    "typing.SupportsInt": _is_integer,
    "typing_extensions.Buffer": _is_buffer,
    "unsigned int": _is_integer,
    "unsigned long long": _is_integer,
}


def accepts(name: str, value: Any, classes: Mapping[str, type]) -> bool:
    """Whether a parameter of this type takes the value; KeyError for a type that is not known."""
    return isinstance(value, classes[name]) if name in classes else BUILT_IN[name](value)
