"""A module `tensorrt` of fake classes, checked against the real bindings.

Each fake class stands for the real one of its name, as far as the product uses it. Its own names
and parameters are checked when the module is made, the product's arguments in every call.
"""

import enum
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from types import ModuleType
from typing import Any, Literal

import onnx

from tests.vendor.conversions import accepts
from tests.vendor.device import Device
from tests.vendor.interface import Interface
from tests.vendor.signatures import Signature

Failure = Literal["parse", "build", "deserialize", "context", "execute"]


@dataclass(frozen=True, slots=True)
class Build:
    """The arguments of one call of build_serialized_network, with TensorRT's names."""

    model: onnx.ModelProto
    network_flags: frozenset[str]
    flags: frozenset[str]
    verbosity: str
    workspace: int
    cached: tuple[str, ...]  # layers that the timing cache had before


class FakeTensorRt:
    """The module, what is to fail in it, and what it built."""

    def __init__(self, interface: Interface, device: Device, fakes: Iterable[type]) -> None:
        self.interface = interface
        self.device = device
        self.parser_error = ("/0/Conv", "Conv", "unsupported")  # node, operator, description
        self.builds: list[Build] = []
        self._failures: dict[Failure, Iterator[bool]] = {}
        members = {name: each["members"] for name, each in interface.classes.items()}
        self.enums = {name: _enum(name, members[name]) for name in members if members[name]}
        self.fakes = {fake.__name__: self._checked_class(fake) for fake in fakes}
        self.classes: dict[str, type] = {**self.enums, **self.fakes}
        self.module = self._module()

    def _module(self) -> ModuleType:
        module = ModuleType("tensorrt")
        module.__version__ = self.interface.version  # type: ignore[attr-defined]
        for name, each in self.classes.items():
            owner, _, attribute = name.rpartition(".")
            if not owner or owner in self.classes:
                setattr(self.classes[owner] if owner else module, attribute, each)
        for name, value in self.interface.constants.items():
            owner, _, member = value.rpartition(".")
            setattr(module, name, self.enums[owner][member])
        exec(self.interface.sources["nptype"], vars(module))
        return module

    def fail(self, what: Failure, calls: int | None = None, after: int = 0) -> None:
        """Let calls fail from now on, or only so many of them, once `after` have succeeded."""
        failing = repeat(True) if calls is None else repeat(True, calls)
        self._failures[what] = chain(repeat(False, after), failing)

    def fails(self, what: Failure) -> bool:
        """Whether this call fails."""
        return next(self._failures.get(what, repeat(False, 0)), False)

    def new(self, name: str, **attributes: Any) -> Any:
        """An object that only TensorRT makes; attributes without _ are properties of the class."""
        for each in attributes:
            assert each.startswith("_") or self.interface.readable(name, each), f"{name}.{each}"
        made = object.__new__(self.fakes[name])
        vars(made).update(attributes)
        return made

    def error(self, logger: Any, text: str) -> None:
        """A message to the logger, as TensorRT reports errors."""
        logger.log(self.enums["ILogger.Severity"]["ERROR"], text)

    def host_memory(self, content: bytes) -> Any:
        return self.new("IHostMemory", _content=content)

    def names(self, enum_name: str, flags: int) -> frozenset[str]:
        """The members of an enum whose bits are set."""
        return frozenset(each.name for each in self.enums[enum_name] if flags >> int(each) & 1)

    def _checked_class(self, fake: type) -> type:
        """The class with every method checked; fails where the real class lacks one."""
        name = fake.__name__
        if "__bytes__" in vars(fake):
            assert self.interface.classes[name]["buffer"], f"{name} is no buffer"
        checked: dict[str, Any] = {"_vendor": self, "_is_vendor": True}
        for each, value in vars(fake).items():
            if isinstance(value, property):
                assert self.interface.readable(name, each), f"there is no {name}.{each}"
            elif inspect.isfunction(value) and (not each.startswith("_") or each == "__init__"):
                checked[each] = self._checked(name, each, value)
        return type(fake)(name, (fake,), checked)

    def _checked(self, owner: str, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        overloads = self.interface.method(owner, name)
        assert overloads is not None, f"there is no {owner}.{name}"
        ours = list(inspect.signature(method).parameters)[1:]
        assert any(_agree(ours, each) for each in overloads), f"{owner}.{name} takes other names"

        @functools.wraps(method)
        def call(made: Any, *args: Any, **kwargs: Any) -> Any:
            for each in overloads:
                if self._fits(each, each.bind(args, kwargs)):
                    result = method(made, *args, **kwargs)
                    assert result is None or accepts(each.returns, result, self.classes), result
                    return result
            raise TypeError(f"{owner}.{name} does not take {args}, {kwargs}")

        return call

    def _fits(self, signature: Signature, bound: Mapping[str, Any] | None) -> bool:
        return bound is not None and all(
            accepts(each.type, bound[each.name], self.classes)
            for each in signature.parameters
            if each.name in bound
        )

    def check_set(self, owner: str, name: str, value: Any) -> None:
        """Raise where the real class has no such property, or it takes another type."""
        kind = self.interface.setter(owner, name)
        if kind is None:
            raise AttributeError(f"{owner}.{name} cannot be set")
        if value is not None and not accepts(kind, value, self.classes):
            raise TypeError(f"{owner}.{name} takes {kind}, not {value!r}")


def _enum(name: str, members: Mapping[str, int]) -> Any:
    """As pybind11 makes one: not an int, but convertible to one."""
    to_int = {"__int__": lambda each: each.value, "__index__": lambda each: each.value}
    base = enum.Enum("FakeEnum", {}, type=type("Convertible", (), to_int))
    return enum.Enum(name.rpartition(".")[2], members, type=base)  # type: ignore[arg-type]


def _agree(ours: list[str], real: Signature) -> bool:
    """Whether a fake's parameters are the first of the real ones, and the others are optional."""
    others = real.parameters[len(ours) :]
    return len(ours) <= len(real.parameters) and all(
        [*(a == b.name or b.positional_only for a, b in zip(ours, real.parameters, strict=False))]
        + [each.optional for each in others]
    )


class _FakeType(type):
    """As pybind11's metaclass: a subclass must call its base's constructor."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if "_constructed" not in vars(made):
            raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")
        return made


class Fake(metaclass=_FakeType):
    """Attributes can be set that the real class lets set; those with _ are the fake's own."""

    _vendor: FakeTensorRt

    def __init__(self) -> None:
        raise TypeError(f"tensorrt.{type(self).__name__}: No constructor defined!")

    def __setattr__(self, name: str, value: Any) -> None:
        if "_is_vendor" in vars(type(self)) and not name.startswith("_"):
            self._vendor.check_set(type(self).__name__, name, value)
        object.__setattr__(self, name, value)
