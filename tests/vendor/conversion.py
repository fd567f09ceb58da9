"""Whether a value passes as a type that a signature names, as pybind11 and Cython convert them."""

import ast
import functools
from collections.abc import Callable, Mapping
from typing import Any

Accepts = Callable[[Any], bool]


def accepts(annotation: str, value: Any, classes: Mapping[str, type]) -> bool:
    """Types that nothing is known of take everything."""
    return _matches(_parsed(annotation), value, classes)


@functools.cache
def _parsed(annotation: str) -> ast.expr:
    try:
        return ast.parse(annotation, mode="eval").body
    except SyntaxError:  # "unsigned long long" of C
        return ast.Constant(annotation)


def _matches(kind: ast.expr, value: Any, classes: Mapping[str, type]) -> bool:
    match kind:
        case ast.BinOp(left, ast.BitOr(), right):
            return _matches(left, value, classes) or _matches(right, value, classes)
        case ast.Subscript(outer, inner):
            inners = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _matches_generic(ast.unparse(outer), inners, value, classes)
        case ast.Constant(str() as name):
            return _matches_name(name, value, classes)
        case _:
            return _matches_name(ast.unparse(kind), value, classes)


def _matches_name(name: str, value: Any, classes: Mapping[str, type]) -> bool:
    if name in classes:
        return isinstance(value, classes[name]) or (
            # Wherever a shape is wanted, a list or tuple of numbers is one.
            name == "Dims" and is_sequence(value) and all(map(is_integer, value))
        )
    return PLAIN[name](value) if name in PLAIN else True


def _matches_generic(
    name: str, inners: list[ast.expr], value: Any, classes: Mapping[str, type]
) -> bool:
    match name.rpartition(".")[2]:
        case "list" | "Sequence":
            return is_sequence(value) and all(_matches(inners[0], each, classes) for each in value)
        case "tuple":
            if not isinstance(value, tuple) or len(value) != len(inners):
                return False
            pairs = zip(inners, value, strict=True)
            return all(_matches(inner, each, classes) for inner, each in pairs)
        case "Optional":
            return value is None or _matches(inners[0], value, classes)
        case _:
            return True


def is_integer(value: Any) -> bool:
    """pybind11 rounds nothing; an enum member or an int of numpy will do."""
    return hasattr(value, "__index__")


def is_sequence(value: Any) -> bool:
    """Text and bytes are not."""
    if isinstance(value, (str, bytes, dict)):
        return False
    return hasattr(value, "__getitem__") and hasattr(value, "__len__")


def is_buffer(value: Any) -> bool:
    """What bytes() copies the memory of; a fake that stands for such a thing has a __bytes__."""
    if hasattr(value, "__bytes__"):
        return True
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


def _is_float(value: Any) -> bool:
    return hasattr(value, "__float__") or is_integer(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ == "bool_"


PLAIN: Mapping[str, Accepts] = {
    "None": lambda value: value is None,
    "bool": _is_flag,
    "bytes": lambda value: isinstance(value, bytes),
    "dict": lambda value: isinstance(value, dict),
    "float": _is_float,
    "int": is_integer,
    "list": lambda value: isinstance(value, list),
    "size_t": is_integer,
    "slice": lambda value: isinstance(value, slice),
    "str": lambda value: isinstance(value, (str, bytes)),
    "tuple": lambda value: isinstance(value, tuple),
    "typing.SupportsFloat": _is_float,
    "typing.SupportsInt": is_integer,
    "typing_extensions.Buffer": is_buffer,
    "unsigned int": is_integer,
    "unsigned long long": is_integer,
}
