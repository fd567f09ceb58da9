"""Calls in our source: how many arguments the vendor's functions are given."""

import ast
from dataclasses import dataclass
from typing import Final

from tests.vendor.expressions import Expressions, Scope
from tests.vendor.kinds import (
    PLAIN,
    UNKNOWN,
    ClassOf,
    Instance,
    Items,
    Kind,
    Own,
    OwnClass,
    Parts,
    Returns,
    Routine,
    Unknown,
    element,
    join,
)

COLLECT: Final = ("frozenset", "iter", "list", "reversed", "set", "sorted", "tuple")
ITERATE: Final = (*COLLECT, "all", "any", "dict", "enumerate", "max", "min", "sum", "zip")
BUFFERS: Final = ("bytearray", "bytes", "memoryview")
SPECIAL: Final = {"int": "__int__", "len": "__len__"}
BY_NAME: Final = ("getattr", "hasattr")
SUPER: Final = "super()"  # in a scope: what it returns there


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments of a call: by position, the names of the others, and whether that is all."""

    kinds: tuple[Kind, ...]
    names: tuple[str, ...]
    counted: bool


class Calls(Expressions):
    """Of the vendor's, of ours and of Python's own."""

    def call(self, node: ast.Call, scope: Scope) -> Kind:
        """What it returns."""
        if isinstance(node.func, ast.Name) and (
            node.func.id not in scope or node.func.id == "cast"
        ):
            return self._builtin(node, node.func.id, scope)
        if isinstance(node.func, ast.Attribute):
            called, path = self.attribute(node.func, scope)
            if path is not None and not isinstance(called, (Routine, ClassOf)):
                self.use(node, path, "read")
        else:
            called = self.evaluate(node.func, scope)
        given = self._given(node, scope)
        if isinstance(called, (Routine, ClassOf)) and not given.counted:
            self.doubt(node)
        match called:
            case Routine(path, unbound):
                count = len(given.kinds) - (unbound and not self.is_static(path))
                self.use(node, path, "call", count, given.names)
                return self.returned(path, count, given.names)
            case ClassOf(name):
                self.use(node, name, "call", len(given.kinds), given.names)
                return Instance(name)
            case OwnClass(name):
                return Own(name)
            case Returns(kind):
                return kind
            case Unknown():
                return UNKNOWN
            case _:
                return PLAIN

    def _given(self, node: ast.Call, scope: Scope) -> Given:
        kinds: list[Kind] = []
        counted = all(each.arg is not None for each in node.keywords)
        for each in node.args:
            kind = self.evaluate(each, scope)
            if not isinstance(each, ast.Starred):
                kinds.append(kind)
            elif isinstance(kind, Parts):
                kinds.extend(kind.kinds)
            else:
                counted = False
        for keyword in node.keywords:
            self.evaluate(keyword.value, scope)
        names = tuple(each.arg for each in node.keywords if each.arg is not None)
        return Given(tuple(kinds), names, counted)

    def _builtin(self, node: ast.Call, name: str, scope: Scope) -> Kind:
        if name in BY_NAME and len(node.args) > 1:
            return self._by_name(node, scope)
        kinds = self._given(node, scope).kinds
        for kind in kinds:
            if isinstance(kind, Instance):
                self._converted(node, name, kind)
        elements = [element(kind, self.inventory) for kind in kinds]
        match name:
            case "super":
                return scope.get(SUPER, PLAIN)
            case "cast" if len(node.args) > 1:
                return self.annotation(node.args[0], scope)
            case "enumerate" if kinds:
                return Items(Parts((PLAIN, elements[0])))
            case "zip":
                return Items(Parts(tuple(elements)))
            case "max" | "min" | "next":
                return join(*elements)
            case _:
                return Items(join(*elements)) if name in COLLECT else PLAIN

    def _converted(self, node: ast.Call, name: str, kind: Instance) -> None:
        if name in ITERATE:
            self.use(node, kind.name, "iterate")
        elif name in BUFFERS:
            self.use(node, kind.name, "buffer")
        elif name in SPECIAL:
            self.use(node, f"{kind.name}.{SPECIAL[name]}", "call")

    def _by_name(self, node: ast.Call, scope: Scope) -> Kind:
        """getattr and the like: a name that may be missing is no use of it."""
        base = self.evaluate(node.args[0], scope)
        for each in node.args[2:]:
            self.evaluate(each, scope)
        if base == PLAIN:
            return PLAIN
        name = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        if not isinstance(name, str):
            self.doubt(node)
            return UNKNOWN
        kind, path = self.look_up(node, base, name)
        if path is not None and ast.unparse(node.func) == "getattr" and len(node.args) == 2:
            self.use(node, path, "read")
        return kind
