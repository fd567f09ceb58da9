"""A module `cuda.bindings.runtime` on a simulated device.

Its functions are those of the real module and take what those take; what is not simulated raises
NotScripted. Enums and handles are the real classes.
"""

from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from cuda.bindings import runtime as real

from tests.vendor.conversion import accepts
from tests.vendor.cuda_calls import Calls, Values, number
from tests.vendor.cuda_runtime import is_function
from tests.vendor.device import Device, Mistake, Refused
from tests.vendor.fake_tensorrt import BadScript, NotScripted
from tests.vendor.inventory import Inventory, Signature
from tests.vendor.signatures import split_top

SUCCESS: Final = real.cudaError_t.cudaSuccess


class FakeCuda:
    """The module, the device that it works on, and errors to come."""

    def __init__(self, inventory: Inventory, device: Device | None = None) -> None:
        self.device = device or Device()
        self.calls: Counter[str] = Counter()  # by function
        self._failures: dict[str, list[real.cudaError_t]] = {}
        self._last = SUCCESS
        self._simulated = Calls(self.device)
        self._classes = {name: getattr(real, name) for name in inventory.classes}
        self.module = ModuleType("cuda.bindings.runtime", "A fake of the module of that name")
        for name, each in vars(real).items():
            if not name.startswith("_") and not is_function(each):
                setattr(self.module, name, each)
        for name, (signature,) in inventory.functions.items():
            setattr(self.module, name, self._function(name, signature))

    def fail(
        self, name: str, error: str = "cudaErrorMemoryAllocation", calls: int = 1, after: int = 0
    ) -> None:
        """Let calls of a function return an error, once some more have succeeded."""
        if not hasattr(self._simulated, name):
            raise BadScript(f"{name} is not simulated, so that it cannot fail")
        if not hasattr(real.cudaError_t, error):
            raise BadScript(f"there is no {error}")
        self._failures[name] = [SUCCESS] * after + [getattr(real.cudaError_t, error)] * calls

    def _function(self, name: str, signature: Signature) -> Callable[..., Values]:
        values = len(split_top(signature.returns.removeprefix("tuple[").removesuffix("]"))) - 1

        def call(*args: Any, **kwargs: Any) -> Values:
            self.calls[name] += 1
            bound = signature.bind(args, kwargs)
            if bound is None:
                raise TypeError(f"{name}{signature} does not take {args}, {kwargs}")
            for each in signature.parameters:
                # cuda-python 12 takes members of the enums only, later versions numbers as well.
                if not accepts(each.type, bound[each.name], self._classes):
                    raise TypeError(f"{name}{signature} does not take {bound[each.name]!r}")
            error, made = self._call(name, [bound[each.name] for each in signature.parameters])
            if error != SUCCESS:
                made = (None,) * values
            assert len(made) == values, f"{name} returns {signature.returns}"
            return error, *made

        return call

    def _call(self, name: str, args: list[Any]) -> tuple[real.cudaError_t, Values]:
        if name == "cudaGetLastError":
            last, self._last = self._last, SUCCESS
            return last, ()
        if not hasattr(self._simulated, name):
            raise NotScripted(f"{name} is not simulated")
        pending = self._failures.get(name, [])
        error = pending.pop(0) if pending else SUCCESS
        made: Values = ()
        if error == SUCCESS:
            error, made = self._simulate(name, args)
        elif name == "cudaStreamEndCapture":  # which ends it nevertheless
            self.device.queue(number(args[0])).recorded = None
        self._last = error if error != SUCCESS else self._last
        return error, made

    def _simulate(self, name: str, args: list[Any]) -> tuple[real.cudaError_t, Values]:
        try:
            return SUCCESS, getattr(self._simulated, name)(*args)
        except Refused as exc:
            if isinstance(exc, Mistake):
                self.device.faults.append(f"{name}: {exc}")
            return getattr(real.cudaError_t, exc.error), ()
