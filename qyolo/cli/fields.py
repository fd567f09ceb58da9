"""Command-line options made from the fields of pydantic models.

A field gives its option the name, the type, the bounds, the default and the help. Its
`json_schema_extra` may hold `option` (another name), `metavar` and `env` (an environment variable).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

Command = Callable[..., None]
Fields = Mapping[str, FieldInfo]


def options_of(
    fields: Fields, panel: str | None = None, env_prefix: str | None = None, required: bool = False
) -> dict[str, Parameter]:
    """An option for each field, by the field's name.

    With `env_prefix` the environment gives the default: the option's own default is None, and its
    help names the variable. `required` demands the options of fields that have no default.
    """
    return {
        name: _option(name, field, panel, env_prefix, required) for name, field in fields.items()
    }


def flag(name: str, field: FieldInfo | None) -> str:
    """The option of a field, as a user types it."""
    return f"--{_extra(field).get('option', name).replace('_', '-')}"


def takes(
    name: str, options: Mapping[str, Parameter], make: Callable[..., object]
) -> Callable[[Command], Command]:
    """A decorator: options take the place of a command's parameter.

    `make` receives their values by name and returns the value of the parameter.
    """

    def substitute(command: Command) -> Command:
        @wraps(command)
        def run(**values: Any) -> None:
            chosen = {option: values.pop(option) for option in options}
            command(**values, **{name: make(**chosen)})

        return _with_parameters(run, command, {name: list(options.values())})

    return substitute


def takes_fields(fields: Fields, panel: str) -> Callable[[Command], Command]:
    """A decorator: parameters of the command that are named like fields become their options."""
    replaced = {name: [option] for name, option in options_of(fields, panel).items()}
    return lambda command: _with_parameters(command, command, replaced)


def parameter(name: str, annotation: object, default: object = Parameter.empty) -> Parameter:
    """A parameter of a command, which is always called by name."""
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _option(
    name: str, field: FieldInfo, panel: str | None, env_prefix: str | None, required: bool
) -> Parameter:
    kind, extra = _type_of_one(field.annotation), _extra(field)
    default = None if field.is_required() or field.default == () else field.default
    names = flag(name, field)
    if default is True:
        names += f"/--no-{names[2:]}"
    text = (field.description or "").rstrip(".") + "."
    if env_prefix is not None:
        shown = str(default).lower() if isinstance(default, bool) else default
        known = "" if default is None else f", default: {shown}"
        text += f" (env: {env_prefix}{name.upper()}{known})"
        default = None
    option = typer.Option(
        names,
        help=text[:1].upper() + text[1:],
        min=_bound(field, "ge"),
        max=_bound(field, "le"),
        metavar=extra.get("metavar"),
        envvar=extra.get("env"),
        rich_help_panel=panel,
    )
    if required and field.is_required():
        return parameter(name, Annotated[kind, option])
    optional = kind if default is not None else kind | None
    return parameter(name, Annotated[optional, option], default)


def _type_of_one(annotation: Any) -> Any:
    """The type without None; a tuple becomes a list, which typer makes a repeatable option.

    A type of our own is text, which the field's validator reads.
    """
    inner = get_args(annotation)
    if NoneType in inner:
        first = next(each for each in inner if each is not NoneType)
        return str if is_dataclass(first) else first
    return list[inner[0]] if get_origin(annotation) is tuple else annotation  # type: ignore[valid-type]


def _bound(field: FieldInfo, name: str) -> float | None:
    return next((getattr(each, name) for each in field.metadata if hasattr(each, name)), None)


def _extra(field: FieldInfo | None) -> Mapping[str, Any]:
    extra = field.json_schema_extra if field is not None else None
    return extra if isinstance(extra, dict) else {}


def _with_parameters(
    run: Command, command: Command, replaced: Mapping[str, Sequence[Parameter]]
) -> Command:
    """`run` with the signature of `command`, in which other parameters replace some."""
    parameters = [
        each.replace(kind=Parameter.KEYWORD_ONLY)
        for own in signature(command).parameters.values()
        for each in replaced.get(own.name, [own])
    ]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
