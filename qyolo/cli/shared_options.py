"""Options that commands share, listed once, by the function that makes something of them."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

Command = Callable[..., None]


def in_place_of(name: str, make: Callable[..., object]) -> Callable[[Command], Command]:
    """A decorator: the command takes what `make` takes, and gets what it makes as `name`."""
    theirs = list(signature(make).parameters.values())

    def substitute(command: Command) -> Command:
        own = list(signature(command).parameters.values())
        at = next(index for index, each in enumerate(own) if each.name == name)
        parameters = [*own[:at], *theirs, *own[at + 1 :]]

        @wraps(command)
        def run(**given: Any) -> None:
            chosen = {parameter.name: given.pop(parameter.name) for parameter in theirs}
            command(**given, **{name: make(**chosen)})

        run.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return substitute
