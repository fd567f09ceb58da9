"""Whether the vendor's module has what a source file uses, and takes what it is given."""

from collections.abc import Iterator

from tests.vendor.inventory import Inventory, Signature
from tests.vendor.notes import Use
from tests.vendor.usage import Usage


def misfits(usage: Usage, inventory: Inventory) -> list[str]:
    """One line for each use that would fail."""
    name = f"{inventory.module} {inventory.version}"
    return [
        f"line {use.line}: {name}: {problem}"
        for use in usage.uses
        for problem in _problems(use, inventory)
    ]


def _problems(use: Use, inventory: Inventory) -> Iterator[str]:
    owner, _, name = use.path.rpartition(".")
    told = inventory.property(owner, name)
    match use.how:
        case _ if not inventory.has(use.path):
            yield f"there is no {use.path}"
        case "read" if told is not None and told.gives is None:
            yield f"{use.path} cannot be read"
        case "set" if told is None or told.takes is None:
            yield f"{use.path} cannot be set"
        case "call":
            yield from _calls(use, inventory)
        case "override":
            signatures = inventory.method(owner, name) or ()
            if not any(len(each.parameters) == use.positional for each in signatures):
                yield f"{use.path} is called with {_listed(signatures)}"
        case "subclass":
            yield from _inherits(use, inventory)
        case "iterate" if not _iterable(use.path, inventory):
            yield f"{use.path} is no sequence"
        case "buffer" if not any(each.buffer for each in inventory.lineage(use.path)):
            yield f"{use.path} is no buffer"


def _calls(use: Use, inventory: Inventory) -> Iterator[str]:
    owner, _, name = use.path.rpartition(".")
    if use.path in inventory.classes:
        signatures = inventory.method(use.path, "__init__")
    elif owner:
        signatures = inventory.method(owner, name)
    else:
        signatures = inventory.functions.get(name)
    if signatures is None:
        yield f"{use.path} cannot be called"
        return
    args, kwargs = [None] * use.positional, dict.fromkeys(use.keywords)
    if all(each.bind(args, kwargs) is None for each in signatures):
        given = ", ".join([*["_"] * use.positional, *(f"{each}=_" for each in use.keywords)])
        yield f"{use.path}({given}), but it takes {_listed(signatures)}"


def _inherits(use: Use, inventory: Inventory) -> Iterator[str]:
    """What a vendor's base class calls must all be there; it has no method that does nothing."""
    if inventory.method(use.path, "__init__") is None:
        yield f"{use.path} cannot be inherited from"
    for each in inventory.lineage(use.path):
        for name in each.methods:
            if not name.startswith("__") and name not in use.keywords:
                yield f"{use.path}.{name} is not overridden"


def _iterable(name: str, inventory: Inventory) -> bool:
    return any(inventory.method(name, each) for each in ("__iter__", "__getitem__"))


def _listed(signatures: tuple[Signature, ...]) -> str:
    return " or ".join(str(each) for each in signatures)
