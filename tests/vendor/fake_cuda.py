"""A module `cuda.bindings.runtime` on a simulated device.

Functions take what the real ones take, by their names and docstrings; enums and handles are the
real classes, which load without a GPU.
"""

import inspect
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from cuda.bindings import runtime as real

from tests.vendor.conversions import accepts
from tests.vendor.device import Device, Refused, Values
from tests.vendor.signatures import Signature, cython_signature

SUCCESS: Final = real.cudaError_t.cudaSuccess


class FakeCuda:
    """The module, the device that it works on, the number of calls of each function."""

    def __init__(self) -> None:
        self.device = Device()
        self.calls: Counter[str] = Counter()
        self._failures: dict[str, list[real.cudaError_t]] = {}
        self._classes = {n: each for n, each in vars(real).items() if inspect.isclass(each)}
        self.module = ModuleType("cuda.bindings.runtime")
        vars(self.module).update(self._classes)
        for name in dir(Device):
            if name.startswith("cuda"):
                signature = cython_signature(getattr(real, name))
                setattr(self.module, name, self._function(name, signature))

    def fail(self, name: str, error: str, after: int = 0) -> None:
        """Let one call of a function return an error, once `after` calls have succeeded."""
        assert hasattr(Device, name), name
        self._failures[name] = [SUCCESS] * after + [getattr(real.cudaError_t, error)]

    def _function(self, name: str, signature: Signature) -> Callable[..., Values]:
        def call(*args: Any, **kwargs: Any) -> Values:
            self.calls[name] += 1
            bound = signature.bind(args, kwargs)
            if bound is None or not all(
                accepts(each.type, bound[each.name], self._classes) for each in signature.parameters
            ):
                raise TypeError(f"{name} does not take {args}, {kwargs}")
            error, values = self._run(name, *bound.values())
            if error != SUCCESS:
                values = (None,) * signature.values
            assert len(values) == signature.values, name
            return error, *values

        return call

    def _run(self, name: str, *args: Any) -> tuple[real.cudaError_t, Values]:
        pending = self._failures.get(name, [])
        error = pending.pop(0) if pending else SUCCESS
        if error != SUCCESS:
            if name == "cudaStreamEndCapture":  # which ends it nevertheless
                self.device.end_capture(args[0])
            return error, ()
        try:
            return SUCCESS, getattr(self.device, name)(*args)
        except Refused as exc:
            self.device.mistakes.append(f"{name}: {exc}")
            return getattr(real.cudaError_t, exc.error), ()
