"""cuda.bindings.runtime, the real one, which loads without a GPU: module -> Inventory."""

import inspect
from collections.abc import Iterator
from typing import Any

import cuda.bindings
from cuda.bindings import runtime

from tests.vendor.inventory import Inventory, Property, VendorClass
from tests.vendor.signatures import cython_signature


def read_cuda_runtime() -> Inventory:
    """Functions by their docstrings, which tell what is returned as well."""
    return Inventory(
        module="cuda.bindings.runtime",
        version=cuda.bindings.__version__,
        classes={name: _class(name, each) for name, each in _public() if inspect.isclass(each)},
        functions={
            name: (cython_signature(each),) for name, each in _public() if is_function(each)
        },
        constants={name: each for name, each in _public() if isinstance(each, int)},
    )


def is_function(value: Any) -> bool:
    """A function of the module, which Cython compiled."""
    return type(value).__name__ == "cython_function_or_method"


def _public() -> Iterator[tuple[str, Any]]:
    return (
        (name, each)
        for name, each in vars(runtime).items()
        if not name.startswith("_") and getattr(each, "__module__", None) != "typing"
    )


def _class(name: str, kind: type) -> VendorClass:
    members = getattr(kind, "__members__", {})
    own = {each: value for each, value in vars(kind).items() if not each.startswith("_")}
    return VendorClass(
        name=name,
        bases=tuple(base.__name__ for base in kind.__bases__ if hasattr(runtime, base.__name__)),
        properties={
            each: Property("object", "object")
            for each, value in own.items()
            if inspect.isgetsetdescriptor(value)
        },
        members={each: int(value) for each, value in members.items()},
    )
