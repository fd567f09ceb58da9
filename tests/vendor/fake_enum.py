"""Enums as pybind11 makes them: not ints, but with one inside; equal to their own kind only."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from tests.vendor.inventory import VendorClass


class FakeEnum:
    """A member; any number makes one."""

    __slots__ = ("_value",)
    __members__: Mapping[str, "FakeEnum"]

    def __init__(self, value: int) -> None:
        self._value = operator.index(value)

    @property
    def value(self) -> int:
        """The number."""
        return self._value

    @property
    def name(self) -> str:
        """The first name of the value."""
        names = (name for name, each in self.__members__.items() if each.value == self.value)
        return next(names, "???")

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FakeEnum) and (type(other), other.value) == (
            type(self),
            self.value,
        )

    def __hash__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


def fake_enum(told: VendorClass, attributes: Mapping[str, Any]) -> type:
    """The class, its members as attributes of it. Those that the real one orders have an order."""
    order = {name: _compare(name) for name in told.methods if name in ORDER}
    short = told.name.rpartition(".")[2]
    made = type(short, (FakeEnum,), {"__slots__": (), **attributes, **order})
    made.__members__ = {name: made(value) for name, value in told.members.items()}
    for name, member in made.__members__.items():
        setattr(made, name, member)
    return made


def _compare(name: str) -> Callable[[FakeEnum, object], bool]:
    def compare(member: FakeEnum, other: object) -> bool:
        if type(other) is not type(member):
            raise TypeError("Expected an enumeration of matching type!")
        return ORDER[name](member.value, other.value)

    return compare


ORDER: Mapping[str, Callable[[int, int], bool]] = {
    "__lt__": int.__lt__,
    "__le__": int.__le__,
    "__gt__": int.__gt__,
    "__ge__": int.__ge__,
}
