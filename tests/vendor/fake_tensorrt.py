"""A module `tensorrt` made of an inventory: it has what the real one has and refuses the rest.

What a call does is for a test to say, by behaviours: "Builder.create_network" is called with self
and every argument, defaults included; "ICudaEngine.num_layers" reads a property, and
"IExecutionContext.profiler=" hears of its being set. Constructors and properties that were set
remember what they were given.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

from tests.vendor.conversion import accepts
from tests.vendor.fake_enum import fake_enum
from tests.vendor.inventory import Inventory, Property, Signature, VendorClass

Behaviours = Mapping[str, Callable[..., Any]]

ENUM_OWN: Final = "name", "value", "__members__"


class NotScripted(AssertionError):
    """The real module has it, but no test said what it does."""


class BadScript(AssertionError):
    """A behaviour for what the real module lacks, or one that returns what it would not."""


class FakeType(type):
    """As pybind11's metaclass: a subclass that does not call its base's constructor is refused."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if not hasattr(made, "_state"):
            raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")
        return made


class FakeObject(metaclass=FakeType):
    """`_state` is what a behaviour may keep in it, by name; no other attribute can be set."""

    __slots__ = ("__weakref__", "_state")
    _state: dict[str, Any]


class FakeTensorRt:
    """The module, and the way to objects that only TensorRT itself makes."""

    def __init__(self, inventory: Inventory, behaviours: Behaviours | None = None) -> None:
        self.inventory = inventory
        self.behaviours = dict(behaviours or {})
        self.classes: dict[str, type] = {}
        self.module = ModuleType("tensorrt", f"A fake of version {inventory.version}")
        for name in inventory.classes:
            self._class(name)
        for name, kind in self.classes.items():
            owner, _, attribute = name.rpartition(".")
            setattr(self.classes[owner] if owner else self.module, attribute, kind)
        for name, each in inventory.classes.items():
            for attribute, value in each.constants.items():
                setattr(self.classes[name], attribute, self._value(value))
        for name, value in inventory.constants.items():
            setattr(self.module, name, self._value(value))
        for name, signatures in inventory.functions.items():
            if name not in inventory.sources:
                setattr(self.module, name, self._routine(name, signatures))
        for source in inventory.sources.values():
            exec(source, vars(self.module))
        self.module.__version__ = inventory.version
        self._require_real(self.behaviours)

    def script(self, behaviours: Behaviours) -> None:
        """Add behaviours, or put others in their place."""
        self._require_real(behaviours)
        self.behaviours |= behaviours

    def new(self, name: str, /, **state: Any) -> Any:
        """An object of a class, whatever its constructor; properties read what is in the state."""
        kind = self.classes[name]
        made = kind.__new__(kind)
        made._state = state
        return made

    def _require_real(self, behaviours: Behaviours) -> None:
        for name in behaviours:
            owner, _, attribute = name.removesuffix("=").rpartition(".")
            told = self.inventory.property(owner, attribute)
            settable = told is not None and told.takes is not None
            if not (settable if name.endswith("=") else self.inventory.has(name)):
                raise BadScript(f"TensorRT {self.inventory.version} has no {name}")

    def _class(self, name: str) -> type:
        if name not in self.classes:
            told = self.inventory.classes[name]
            bases = tuple(self._class(base) for base in told.bases) or (FakeObject,)
            attributes = self._attributes(told)
            self.classes[name] = (
                fake_enum(told, attributes) if told.members else FakeType(name, bases, attributes)
            )
        return self.classes[name]

    def _attributes(self, told: VendorClass) -> dict[str, Any]:
        attributes: dict[str, Any] = {"__module__": "tensorrt"}
        for name, each in told.properties.items():
            if not (told.members and name in ENUM_OWN):
                attributes[name] = self._property(f"{told.name}.{name}", each)
        if told.members:
            return attributes
        attributes["__slots__"] = ()
        attributes["__init__"] = self._constructor(told)
        for name, signatures in told.methods.items():
            path = f"{told.name}.{name}"
            if name in told.static:
                attributes[name] = staticmethod(self._routine(path, signatures))
            elif name not in ("__init__", "__del__"):
                attributes[name] = self._method(path, signatures)
        if told.buffer:
            attributes["__bytes__"] = lambda made: made._state["bytes"]
        return attributes

    def _constructor(self, told: VendorClass) -> Callable[..., None]:
        path = f"{told.name}.__init__"
        signatures = told.methods.get("__init__")

        def construct(made: Any, *args: Any, **kwargs: Any) -> None:
            if signatures is None:
                raise TypeError(f"tensorrt.{told.name}: No constructor defined!")
            _, bound = self._bind(path, signatures, args, kwargs)
            made._state = bound
            if path in self.behaviours:
                self.behaviours[path](made, *bound.values())

        return construct

    def _method(self, path: str, signatures: Sequence[Signature]) -> Callable[..., Any]:
        def call(made: Any, *args: Any, **kwargs: Any) -> Any:
            signature, bound = self._bind(path, signatures, args, kwargs)
            return self._checked(path, signature.returns, self._act(path, made, *bound.values()))

        return call

    def _routine(self, path: str, signatures: Sequence[Signature]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            signature, bound = self._bind(path, signatures, args, kwargs)
            return self._checked(path, signature.returns, self._act(path, *bound.values()))

        return call

    def _property(self, path: str, told: Property) -> property:
        name = path.rpartition(".")[2]

        def read(made: Any) -> Any:
            if name in getattr(made, "_state", {}):
                return made._state[name]
            return self._checked(path, told.gives or "object", self._act(path, made))

        def write(made: Any, value: Any) -> None:
            assert told.takes is not None
            if value is not None and not accepts(told.takes, value, self.classes):
                raise TypeError(f"{path} takes {told.takes}, not {value!r}")
            if f"{path}=" in self.behaviours:
                self.behaviours[f"{path}="](made, value)
            made._state[name] = value

        return property(read if told.gives else None, write if told.takes else None)

    def _act(self, path: str, *args: Any) -> Any:
        if path not in self.behaviours:
            raise NotScripted(f"no behaviour is given for {path}")
        return self.behaviours[path](*args)

    def _checked(self, path: str, kind: str, value: Any) -> Any:
        # A pointer to nothing comes as None.
        if not (accepts(kind, value, self.classes) or (value is None and kind in self.classes)):
            raise BadScript(f"{path} returns {kind}, not {value!r}")
        return value

    def _bind(
        self, path: str, signatures: Sequence[Signature], args: Sequence[Any], kwargs: Any
    ) -> tuple[Signature, dict[str, Any]]:
        """The first overload that takes the arguments, and all of them in its order."""
        for signature in signatures:
            bound = signature.bind(args, kwargs)
            if bound is not None and self._fits(signature, bound):
                complete = {
                    each.name: bound[each.name] if each.name in bound else self._default(each)
                    for each in signature.parameters
                }
                return signature, complete
        supported = "\n".join(f"    {each}" for each in signatures)
        raise TypeError(
            f"{path}(): incompatible function arguments. The following argument types are "
            f"supported:\n{supported}\nInvoked with: {args}, {kwargs}"
        )

    def _fits(self, signature: Signature, bound: Mapping[str, Any]) -> bool:
        return all(
            accepts(each.type, bound[each.name], self.classes)
            or (bound[each.name] is None and each.default == "None")
            for each in signature.parameters
            if each.name in bound
        )

    def _default(self, parameter: Any) -> Any:
        try:
            return ast.literal_eval(parameter.default)
        except ValueError:  # the member of an enum
            return self._value(parameter.default)

    def _value(self, value: str | int) -> Any:
        """A constant; a name in it may lack the classes around it, as in Severity.WARNING."""
        if isinstance(value, int):
            return value
        if value in self.classes:
            return self.classes[value]
        owner, _, member = value.rpartition(".")
        found = (name for name in self.classes if f".{name}".endswith(f".{owner}"))
        return getattr(self.classes[next(found)], member)
