"""Builder configurations and timing caches that remember what they are told."""

import json
from typing import Any, Final

from tests.vendor.behaviour import of
from tests.vendor.fake_tensorrt import FakeTensorRt

MAGIC: Final = b"fake TensorRT timing cache\n"
GIBIBYTE: Final = 1 << 30
MEMORY: Final = 8 * GIBIBYTE  # of which the workspace may be all


class Configs:
    """IBuilderConfig and ITimingCache."""

    def __init__(self, fake: FakeTensorRt) -> None:
        self._fake = fake

    @of("Builder.create_builder_config")
    def _create(self, builder: Any) -> Any:
        module = self._fake.module
        return self._fake.new(
            "IBuilderConfig",
            flags=1 << int(module.BuilderFlag.TF32),
            profiling_verbosity=module.ProfilingVerbosity.LAYER_NAMES_ONLY,
            progress_monitor=None,
            builder_optimization_level=3,
            pools={"WORKSPACE": MEMORY},
            cache=None,
        )

    @of("IBuilderConfig.set_flag")
    def _set_flag(self, config: Any, flag: Any) -> None:
        config._state["flags"] |= 1 << int(flag)

    @of("IBuilderConfig.clear_flag")
    def _clear_flag(self, config: Any, flag: Any) -> None:
        config._state["flags"] &= ~(1 << int(flag))

    @of("IBuilderConfig.get_flag", "INetworkDefinition.get_flag")
    def _get_flag(self, owner: Any, flag: Any) -> bool:
        return bool(owner._state["flags"] >> int(flag) & 1)

    @of("IBuilderConfig.set_memory_pool_limit")
    def _set_pool(self, config: Any, pool: Any, size: int) -> None:
        config._state["pools"][pool.name] = int(size)

    @of("IBuilderConfig.get_memory_pool_limit")
    def _get_pool(self, config: Any, pool: Any) -> int:
        return config._state["pools"].get(pool.name, 0)

    @of("IBuilderConfig.create_timing_cache")
    def _create_cache(self, config: Any, content: Any) -> Any:
        """Of another version or damaged, it is empty and does not match."""
        written = bytes(content)
        layers: list[str] = []
        matches = not written
        if written.startswith(MAGIC):
            told = json.loads(written.removeprefix(MAGIC))
            matches = told["version"] == self._fake.inventory.version
            layers = told["layers"] if matches else []
        return self._fake.new("ITimingCache", layers=layers, matches=matches)

    @of("IBuilderConfig.set_timing_cache")
    def _set_cache(self, config: Any, cache: Any, ignore_mismatch: bool) -> bool:
        fits = cache._state["matches"] or ignore_mismatch
        if fits:
            config._state["cache"] = cache
        return fits

    @of("IBuilderConfig.get_timing_cache")
    def _get_cache(self, config: Any) -> Any:
        return config._state["cache"]

    @of("ITimingCache.serialize")
    def _serialize_cache(self, cache: Any) -> Any:
        told = {"version": self._fake.inventory.version, "layers": cache._state["layers"]}
        return host_memory(self._fake, MAGIC + json.dumps(told).encode())

    @of("ITimingCache.combine")
    def _combine(self, cache: Any, other: Any, ignore_mismatch: bool) -> bool:
        fits = other._state["matches"] or ignore_mismatch
        learn(cache, other._state["layers"] if fits else [])
        return fits

    @of("ITimingCache.reset")
    def _reset(self, cache: Any) -> bool:
        cache._state["layers"] = []
        return True


def learn(cache: Any, layers: list[str]) -> None:
    """Measurements of these layers."""
    cache._state["layers"] = list(dict.fromkeys([*cache._state["layers"], *layers]))


def host_memory(fake: FakeTensorRt, content: bytes) -> Any:
    """An IHostMemory."""
    kind = fake.module.DataType.INT8
    return fake.new("IHostMemory", bytes=content, nbytes=len(content), dtype=kind)
