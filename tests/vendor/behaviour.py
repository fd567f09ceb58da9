"""Behaviours for a fake as methods of a class: each says of what it is one."""

from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def of(*names: str) -> Callable[[Method], Method]:
    """Marks a method as the behaviour of these; the fake object follows self."""

    def mark(method: Method) -> Method:
        method.behaviour_of = names
        return method

    return mark


def behaviours_of(part: object) -> dict[str, Callable[..., Any]]:
    """Those that the object's class marks."""
    return {
        name: getattr(part, attribute)
        for attribute, method in vars(type(part)).items()
        for name in getattr(method, "behaviour_of", ())
    }
