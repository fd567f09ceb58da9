"""What an expression of our source is, as far as a vendor's module is concerned."""

import ast
from dataclasses import dataclass, field

from tests.vendor.inventory import Inventory


@dataclass(frozen=True, slots=True)
class Plain:
    """Nothing of the vendor's."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may be anything; `vendor` where the vendor's module made it."""

    vendor: bool = False


@dataclass(frozen=True, slots=True)
class VendorModule:
    """The module itself."""


@dataclass(frozen=True, slots=True)
class ClassOf:
    """A class of the vendor's."""

    name: str


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of such a class, or of one of ours that inherits from it."""

    name: str


@dataclass(frozen=True, slots=True)
class Routine:
    """A function or a method of the vendor's; an unbound one is called with self."""

    path: str
    unbound: bool = False


@dataclass(frozen=True, slots=True)
class OwnClass:
    """A class that the source defines."""

    name: str


@dataclass(frozen=True, slots=True)
class Own:
    """An object of such a class."""

    name: str


@dataclass(frozen=True, slots=True)
class Returns:
    """A callable of ours."""

    kind: "Kind"


@dataclass(frozen=True, slots=True)
class Items:
    """A collection of equals."""

    kind: "Kind"


@dataclass(frozen=True, slots=True)
class Parts:
    """A tuple."""

    kinds: tuple["Kind", ...]


@dataclass(frozen=True, slots=True)
class Mapped:
    """A mapping to equals."""

    kind: "Kind"


Kind = (
    Plain | Unknown | VendorModule | ClassOf | Instance | Routine | OwnClass | Own | Returns
    | Items | Parts | Mapped
)  # fmt: skip

PLAIN = Plain()
UNKNOWN = Unknown()


@dataclass(slots=True)
class Definition:
    """A class of ours: the vendor's that it inherits from, and what its attributes are.

    `before` is what an earlier reading of the source found, for what is used before it is set.
    """

    base: str | None
    attributes: dict[str, Kind] = field(default_factory=dict)
    annotated: set[str] = field(default_factory=set)
    before: dict[str, Kind] = field(default_factory=dict)

    def find(self, name: str) -> Kind | None:
        """What an attribute is, where it has it."""
        return self.attributes.get(name, self.before.get(name))


def join(*kinds: Kind) -> Kind:
    """Of several that it may be, the one that tells something; of two that do, it is unknown."""
    telling = dict.fromkeys(kind for kind in kinds if _tells(kind))
    if len(telling) > 1:
        return Unknown(vendor=True)
    return next(iter(telling), next((kind for kind in kinds if kind != PLAIN), PLAIN))


def _tells(kind: Kind) -> bool:
    match kind:
        case Items(each) | Mapped(each):
            return _tells(each)
        case Parts(kinds):
            return any(map(_tells, kinds))
        case _:
            return kind != PLAIN


def element(kind: Kind, inventory: Inventory) -> Kind:
    """What iterating gives."""
    match kind:
        case Items(each):
            return each
        case Parts(kinds):
            return join(*kinds)
        case Instance(name):
            return indexed(name, inventory)
        case Unknown():
            return kind
        case _:
            return PLAIN


def indexed(name: str, inventory: Inventory) -> Kind:
    """What a vendor's container holds."""
    signatures = inventory.method(name, "__getitem__")
    return vendor_kind(signatures[0].returns, inventory) if signatures else PLAIN


def vendor_kind(annotation: str | None, inventory: Inventory) -> Kind:
    """Of a type that an inventory names."""
    if annotation in inventory.classes:
        return Instance(annotation)
    if annotation in (None, "object", "Any"):
        return Unknown(vendor=True)
    try:
        tree = ast.parse(annotation, mode="eval").body
    except SyntaxError:
        return PLAIN
    if not isinstance(tree, ast.Subscript):
        return PLAIN
    inners = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
    kinds = [vendor_kind(ast.unparse(each), inventory) for each in inners]
    match ast.unparse(tree.value).rpartition(".")[2]:
        case "tuple":
            return Parts(tuple(kinds))
        case "list" | "Sequence" | "Iterator":
            return Items(kinds[0])
        case _:
            return PLAIN


def path_kind(path: str, inventory: Inventory) -> Kind:
    """Of a name in the vendor's module, relative to it; of one that it lacks, nothing."""
    owner, _, attribute = path.rpartition(".")
    if path in inventory.classes:
        return ClassOf(path)
    if not owner:
        if path in inventory.functions:
            return Routine(path)
        value = inventory.constants.get(path)
    elif inventory.method(owner, attribute):
        return Routine(path)
    elif (told := inventory.property(owner, attribute)) is not None:
        return vendor_kind(told.gives, inventory)
    else:
        value = inventory.constant(owner, attribute)
    if not isinstance(value, str):
        return PLAIN
    return ClassOf(value) if value in inventory.classes else Instance(value.rpartition(".")[0])
