"""What a vendor's module offers: its classes, signatures, enums and constants, as data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Parameter:
    """`default` is source text, with None where the argument must be given."""

    name: str
    type: str
    default: str | None = None
    positional_only: bool = False

    def __str__(self) -> str:
        default = "" if self.default is None else f" = {self.default}"
        return f"{self.name}: {self.type}{default}"


@dataclass(frozen=True, slots=True)
class Signature:
    """One overload, without self."""

    parameters: tuple[Parameter, ...]
    returns: str

    def __str__(self) -> str:
        written = ", ".join(str(each) for each in self.parameters)
        return f"({written}) -> {self.returns}"

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """Which argument goes to which parameter; None where count or names do not fit."""
        if len(args) > len(self.parameters):
            return None
        bound = dict(zip((each.name for each in self.parameters), args, strict=False))
        named = {each.name for each in self.parameters if not each.positional_only}
        if not kwargs.keys() <= named - bound.keys():
            return None
        bound |= kwargs
        needed = {each.name for each in self.parameters if each.default is None}
        return bound if needed <= bound.keys() else None


@dataclass(frozen=True, slots=True)
class Property:
    """The type that it gives, and the one that it takes; None where it cannot be read or set."""

    gives: str | None
    takes: str | None


@dataclass(frozen=True, slots=True)
class VendorClass:
    """What a class itself defines; a class with members is an enum."""

    name: str  # with the names of the classes around it
    bases: tuple[str, ...] = ()
    methods: Mapping[str, tuple[Signature, ...]] = field(default_factory=dict)
    static: tuple[str, ...] = ()  # of the methods
    properties: Mapping[str, Property] = field(default_factory=dict)
    members: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, str | int] = field(default_factory=dict)  # a str names what it is
    buffer: bool = False  # bytes() and memoryview() take it


@dataclass(frozen=True, slots=True)
class Inventory:
    """A module; `sources` are its functions that are written in Python."""

    module: str
    version: str
    classes: Mapping[str, VendorClass]
    functions: Mapping[str, tuple[Signature, ...]]
    constants: Mapping[str, str | int]
    sources: Mapping[str, str] = field(default_factory=dict)

    def lineage(self, name: str) -> Iterator[VendorClass]:
        """The class and those that it inherits from, nearest first."""
        if name in self.classes:
            yield self.classes[name]
            for base in self.classes[name].bases:
                yield from self.lineage(base)

    def method(self, name: str, method: str) -> tuple[Signature, ...] | None:
        """The overloads of a method, its own or inherited."""
        found = (each.methods[method] for each in self.lineage(name) if method in each.methods)
        return next(found, None)

    def property(self, name: str, attribute: str) -> Property | None:
        """A property of its own or inherited."""
        for each in self.lineage(name):
            if attribute in each.properties:
                return each.properties[attribute]
        return None

    def constant(self, name: str, attribute: str) -> str | int | None:
        """What an attribute of the class itself is: an enum member by its full name, or a value."""
        for each in self.lineage(name):
            if attribute in each.members:
                return f"{each.name}.{attribute}"
            if attribute in each.constants:
                return each.constants[attribute]
            if f"{each.name}.{attribute}" in self.classes:
                return f"{each.name}.{attribute}"
        return None

    def has(self, path: str) -> bool:
        """Whether a dotted name, relative to the module, exists."""
        owner, _, attribute = path.rpartition(".")
        if path in self.classes:
            return True
        if not owner:
            return path in self.functions or path in self.constants or path == "__version__"
        return (
            self.method(owner, attribute) is not None
            or self.property(owner, attribute) is not None
            or self.constant(owner, attribute) is not None
        )
