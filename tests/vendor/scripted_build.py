"""Building as TensorRT does it, without compiling: an ONNX graph in, a plan that holds it out."""

from typing import Any, Final

import onnx

from tests.vendor.behaviour import of
from tests.vendor.fake_plan import Plan
from tests.vendor.fake_tensorrt import FakeTensorRt
from tests.vendor.plot import Build, Complaint, Plot, members, report
from tests.vendor.scripted_config import host_memory, learn

ROOT_PHASE: Final = "Building Engine"
LAYER_PHASE: Final = "Computing profile costs"


class Cancelled(Exception):
    """By a progress monitor."""


class Parsing:
    """OnnxParser and INetworkDefinition: the graph is read and checked by onnx."""

    def __init__(self, fake: FakeTensorRt, plot: Plot) -> None:
        self._fake = fake
        self._plot = plot

    @of("Logger.log")
    def _log(self, logger: Any, severity: Any, text: str) -> None:
        self._plot.logged.append(text)

    @of("Builder.create_network")
    def _network(self, builder: Any, flags: int) -> Any:
        return self._fake.new("INetworkDefinition", flags=int(flags), model=None)

    @of("OnnxParser.__init__")
    def _parser(self, parser: Any, network: Any, logger: Any) -> None:
        parser._state["errors"] = []

    @of("OnnxParser.parse")
    def _parse(self, parser: Any, content: Any, path: Any) -> bool:
        if self._plot.fails("parse"):
            return self._refuse(parser, self._plot.complaint)
        try:
            model = onnx.load_from_string(bytes(content))
            onnx.checker.check_model(model)
        except Exception as exc:  # of protobuf, of onnx's checker
            return self._refuse(parser, Complaint(f"ModelProto is not valid: {exc}"))
        parser._state["network"]._state["model"] = model
        return True

    def _refuse(self, parser: Any, complaint: Complaint) -> bool:
        parser._state["errors"].append(self._fake.new("ParserError", told=complaint))
        report(self._fake, parser._state["logger"], "ERROR", complaint.desc)
        return False

    @of("OnnxParser.num_errors")
    def _errors(self, parser: Any) -> int:
        return len(parser._state["errors"])

    @of("OnnxParser.get_error")
    def _error(self, parser: Any, index: int) -> Any:
        return parser._state["errors"][index]

    @of("OnnxParser.clear_errors")
    def _clear(self, parser: Any) -> None:
        parser._state["errors"].clear()

    @of("ParserError.code")
    def _code(self, error: Any) -> Any:
        return self._fake.module.ErrorCode.UNSUPPORTED_NODE

    @of("ParserError.desc")
    def _desc(self, error: Any) -> str:
        return error._state["told"].desc

    @of("ParserError.node")
    def _node(self, error: Any) -> int:
        return error._state["told"].node

    @of("ParserError.node_name")
    def _node_name(self, error: Any) -> str:
        return error._state["told"].node_name

    @of("ParserError.node_operator")
    def _node_operator(self, error: Any) -> str:
        return error._state["told"].node_operator


class Building:
    """Builder."""

    def __init__(self, fake: FakeTensorRt, plot: Plot) -> None:
        self._fake = fake
        self._plot = plot

    @of("Builder.build_serialized_network")
    def _build(self, builder: Any, network: Any, config: Any, *kernel_text: Any) -> Any:
        logger = builder._state["logger"]
        model = network._state["model"]
        if model is None:
            report(self._fake, logger, "ERROR", "Network must have at least one output")
            return None
        verbosity = config._state["profiling_verbosity"].name
        plan = Plan(self._fake.inventory.version, verbosity, model)
        layers = [each["Name"] for each in plan.layers()]
        self._plot.builds.append(self._asked(network, config))
        try:
            self._progress(config._state["progress_monitor"], layers)
        except Cancelled:
            report(self._fake, logger, "ERROR", "Engine build is cancelled by progress monitor")
            return None
        if self._plot.fails("build"):
            report(self._fake, logger, "ERROR", "Could not find any implementation for node")
            return None
        if config._state["cache"] is None:  # without one, a build makes its own
            config._state["cache"] = self._fake.new("ITimingCache", layers=[], matches=True)
        learn(config._state["cache"], layers)
        return host_memory(self._fake, plan.pack())

    def _asked(self, network: Any, config: Any) -> Build:
        cache = config._state["cache"]
        flags = network._state["flags"]
        return Build(
            model=network._state["model"],
            network_flags=members(self._fake, "NetworkDefinitionCreationFlag", flags),
            flags=members(self._fake, "BuilderFlag", config._state["flags"]),
            verbosity=config._state["profiling_verbosity"].name,
            pools=dict(config._state["pools"]),
            known=() if cache is None else tuple(cache._state["layers"]),
        )

    def _progress(self, monitor: Any, layers: list[str]) -> None:
        """A phase in which each layer is one of its own; raises Cancelled."""
        if monitor is None:
            return
        monitor.phase_start(ROOT_PHASE, None, len(layers))
        for index, layer in enumerate(layers):
            phase = f"{LAYER_PHASE}: {layer}"
            monitor.phase_start(phase, ROOT_PHASE, 1)
            goes_on = self._step(monitor, phase, 0)
            monitor.phase_finish(phase)
            if not (goes_on and self._step(monitor, ROOT_PHASE, index)):
                monitor.phase_finish(ROOT_PHASE)
                raise Cancelled
        monitor.phase_finish(ROOT_PHASE)

    def _step(self, monitor: Any, phase: str, step: int) -> bool:
        goes_on = monitor.step_complete(phase, step)
        if not isinstance(goes_on, bool):
            raise TypeError(f"step_complete returns a bool, not {goes_on!r}")
        return goes_on
