"""The classes of TensorRT that build: they read and check the graph, but compile nothing."""

import json
from typing import Any, Final

import onnx

from tests.vendor.fake_plan import Plan
from tests.vendor.fake_tensorrt import Build, Fake

CACHE_MAGIC: Final = b"fake TensorRT timing cache\n"
DEFAULT_WORKSPACE: Final = 8 << 30
ROOT_PHASE: Final = "Building Engine"


class ILogger(Fake):
    def __init__(self) -> None:
        self._constructed = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor(Fake):
    def __init__(self) -> None:
        self._constructed = True

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory(Fake):
    def __bytes__(self) -> bytes:
        return self._content


class INetworkDefinition(Fake):
    """Has `_flags` and, after the parse, `_model`."""


class ParserError(Fake):
    def node_name(self) -> str:
        return self._error[0]

    def node_operator(self) -> str:
        return self._error[1]

    def desc(self) -> str:
        return self._error[2]


class OnnxParser(Fake):
    """onnx reads and checks the graph."""

    def __init__(self, network: Any, logger: Any) -> None:
        self._constructed, self._network, self._errors = True, network, []

    def parse(self, model: Any, path: Any = None) -> bool:
        if self._vendor.fails("parse"):
            self._errors.append(self._vendor.new("ParserError", _error=self._vendor.parser_error))
            return False
        self._network._model = onnx.load_from_string(bytes(model))
        onnx.checker.check_model(self._network._model)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class IBuilderConfig(Fake):
    def clear_flag(self, flag: Any) -> None:
        self._flags &= ~(1 << int(flag))

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        assert pool.name == "WORKSPACE"
        self._workspace = pool_size

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        """Of another version or damaged, it is empty and does not match."""
        content, version = bytes(serialized_timing_cache), self._vendor.interface.version
        saved = {"version": None if content else version, "layers": []}
        if content.startswith(CACHE_MAGIC):
            saved = json.loads(content.removeprefix(CACHE_MAGIC))
        matches = saved["version"] == version
        layers = saved["layers"] if matches else []
        return self._vendor.new("ITimingCache", _layers=layers, _matches=matches)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        fits = cache._matches or ignore_mismatch
        if fits:
            self._cache = cache
        return fits

    def get_timing_cache(self) -> Any:
        return self._cache


class ITimingCache(Fake):
    def serialize(self) -> Any:
        saved = {"version": self._vendor.interface.version, "layers": self._layers}
        return self._vendor.host_memory(CACHE_MAGIC + json.dumps(saved).encode())


class Builder(Fake):
    """A plan holds the graph; nothing is compiled."""

    def __init__(self, logger: Any) -> None:
        self._constructed, self._logger = True, logger

    def create_network(self, flags: int = 0) -> Any:
        return self._vendor.new("INetworkDefinition", _flags=flags)

    def create_builder_config(self) -> Any:
        module = self._vendor.module
        return self._vendor.new(
            "IBuilderConfig",
            profiling_verbosity=module.ProfilingVerbosity.LAYER_NAMES_ONLY,
            progress_monitor=None,
            _flags=1 << int(module.BuilderFlag.TF32),
            _workspace=DEFAULT_WORKSPACE,
            _cache=self._vendor.new("ITimingCache", _layers=[], _matches=True),
        )

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        vendor, verbosity = self._vendor, config.profiling_verbosity.name
        plan = Plan(vendor.interface.version, verbosity, network._model)
        layers, cache = plan.layer_names(), config._cache
        network_flags = vendor.names("NetworkDefinitionCreationFlag", network._flags)
        flags = vendor.names("BuilderFlag", config._flags)
        vendor.builds.append(
            Build(
                plan.model, network_flags, flags, verbosity, config._workspace, tuple(cache._layers)
            )
        )
        if config.progress_monitor is not None:
            _report_progress(config.progress_monitor, layers)
        if vendor.fails("build"):
            vendor.error(self._logger, "Could not find any implementation for node")
            return None
        cache._layers = list(dict.fromkeys([*cache._layers, *layers]))
        return vendor.host_memory(plan.pack())


def _report_progress(monitor: Any, layers: list[str]) -> None:
    """Each layer is a phase of its own within the phase of the build."""
    monitor.phase_start(ROOT_PHASE, None, len(layers))
    for index, layer in enumerate(layers):
        monitor.phase_start(layer, ROOT_PHASE, 1)
        assert monitor.step_complete(layer, 0) is True
        monitor.phase_finish(layer)
        assert monitor.step_complete(ROOT_PHASE, index) is True
    monitor.phase_finish(ROOT_PHASE)
