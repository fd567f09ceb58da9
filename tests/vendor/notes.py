"""What is found in a source file about its use of a vendor's module."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tests.vendor.inventory import Inventory
from tests.vendor.kinds import (
    PLAIN,
    UNKNOWN,
    ClassOf,
    Definition,
    Instance,
    Items,
    Kind,
    Mapped,
    Own,
    OwnClass,
    Parts,
    Returns,
    Routine,
    Unknown,
    VendorModule,
    join,
    path_kind,
    vendor_kind,
)

How = Literal["read", "set", "call", "iterate", "buffer", "override", "subclass"]


@dataclass(frozen=True, slots=True)
class Use:
    """One place; `path` is relative to the module. An override takes `positional` arguments, and
    a subclass defines `keywords`."""

    line: int
    path: str
    how: How
    positional: int = 0
    keywords: tuple[str, ...] = ()


class Notes:
    """Uses and doubts as they come up, and what our own classes hold."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.uses: list[Use] = []
        self.unresolved: list[str] = []
        self.definitions: dict[str, Definition] = {}
        self._names = {
            name
            for each in inventory.classes.values()
            for name in (*each.methods, *each.properties)
            if not name.startswith("_")
        }

    def use(
        self, node: ast.AST, path: str, how: How, positional: int = 0, names: tuple[str, ...] = ()
    ) -> None:
        """Note it."""
        self.uses.append(Use(node.lineno, path, how, positional, names))

    def doubt(self, node: ast.AST) -> None:
        """Note what cannot be typed."""
        self.unresolved.append(f"line {node.lineno}: {ast.unparse(node)}")

    def look_up(self, node: ast.AST, base: Kind, name: str) -> tuple[Kind, str | None]:
        """What an attribute is, and its path where it is the vendor's."""
        match base:
            case VendorModule():
                return path_kind(name, self.inventory), name
            case ClassOf(owner) if name == "__members__":
                return Mapped(Instance(owner)), None
            case ClassOf(owner) | Instance(owner):
                path = f"{owner}.{name}"
                kind = path_kind(path, self.inventory)
                if name.startswith("__") and kind == PLAIN:
                    return PLAIN, None
                unbound = isinstance(base, ClassOf) and isinstance(kind, Routine)
                return Routine(path, unbound=True) if unbound else kind, path
            case Own(owner) | OwnClass(owner):
                definition = self.definitions[owner]
                if (known := definition.find(name)) is not None:
                    return known, None
                if definition.base is not None:
                    return self.look_up(node, Instance(definition.base), name)
                return UNKNOWN, None
            case Unknown(vendor):
                if vendor or name in self._names:
                    self.doubt(node)
                return UNKNOWN, None
            case Items(each) if name == "pop":
                return Returns(each), None
            case Mapped(each):
                return _of_mapping(each, name), None
            case _:
                return PLAIN, None

    def store(self, node: ast.Attribute, base: Kind, name: str, kind: Kind) -> None:
        """Set an attribute."""
        if isinstance(base, Own):
            definition = self.definitions[base.name]
            if definition.base is None or self.inventory.property(definition.base, name) is None:
                if name not in definition.annotated:
                    definition.attributes[name] = join(definition.attributes.get(name, PLAIN), kind)
                return
            base = Instance(definition.base)
        _, path = self.look_up(node, base, name)
        if path is not None:
            self.use(node, path, "set")

    def is_static(self, path: str) -> bool:
        """Whether a method of the vendor's takes no self."""
        owner, _, name = path.rpartition(".")
        return any(name in each.static for each in self.inventory.lineage(owner))

    def returned(self, path: str, count: int, names: Iterable[str]) -> Kind:
        """By the first overload that takes as many arguments."""
        owner, _, name = path.rpartition(".")
        told = self.inventory.method(owner, name) if owner else self.inventory.functions[name]
        named = dict.fromkeys(names)
        fitting = [each for each in told or () if each.bind([None] * count, named) is not None]
        return vendor_kind(fitting[0].returns, self.inventory) if fitting else PLAIN


def _of_mapping(each: Kind, name: str) -> Kind:
    match name:
        case "get" | "pop" | "setdefault":
            return Returns(each)
        case "values":
            return Returns(Items(each))
        case "items":
            return Returns(Items(Parts((PLAIN, each))))
        case _:
            return PLAIN
