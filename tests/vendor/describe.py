"""Print the interface of TensorRT's bindings as JSON: python -I -S describe.py FOLDER.

It runs in a process of its own, which imports nothing but the module in the folder.
"""

import ctypes
import importlib
import inspect
import json
import sys
from typing import Any

_has_buffer = ctypes.pythonapi.PyObject_CheckBuffer
_has_buffer.argtypes = [ctypes.py_object]


def public(owner: Any) -> dict[str, Any]:
    return {name: each for name, each in vars(owner).items() if not name.startswith("_")}


def describe_class(kind: type) -> dict[str, Any]:
    members = getattr(kind, "__members__", {})
    found = vars(kind).items()
    return {
        "bases": [base.__qualname__ for base in kind.__bases__],
        "methods": {name: v.__doc__ for name, v in found if type(v).__name__ == "instancemethod"},
        "properties": {
            name: [accessor and (accessor.__doc__ or "") for accessor in (v.fget, v.fset)]
            for name, v in found
            if type(v) is property and name not in members
        },
        "members": {name: int(each) for name, each in members.items()},
        "buffer": not members and bool(_has_buffer(kind.__new__(kind))),
    }


def describe(module: Any) -> dict[str, Any]:
    top = [each for each in public(module).values() if inspect.isclass(each)]
    nested = [each for kind in top for each in public(kind).values() if inspect.isclass(each)]
    values = public(module).items()
    return {
        "version": module.__version__,
        "classes": {each.__qualname__: describe_class(each) for each in [*top, *nested]},
        "constants": {
            name: f"{type(each).__qualname__}.{each.name}"
            for name, each in values
            if hasattr(type(each), "__members__") and not inspect.isclass(each)
        },
        "sources": {n: inspect.getsource(each) for n, each in values if inspect.isfunction(each)},
    }


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    json.dump(describe(importlib.import_module("tensorrt_bindings")), sys.stdout)
