"""What every stage of one build needs: the configuration, the builder, the folder, the progress."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from quantizer.compile.accelerator import Accelerator, choose_accelerator
from quantizer.compile.builder import Builder, Resources
from quantizer.compile.candidates import LOW_NAMES
from quantizer.compile.hardware import detect
from quantizer.compile.load import load_builder
from quantizer.compile.runtime import choose_runtime
from quantizer.config import BuildConfig
from quantizer.errors import BadOption
from quantizer.int8 import Scheme
from service.engines.cpu import usable_threads
from service.inference.variants import AUTO
from service.progress import Progress, ReportProgress


@dataclass(frozen=True, slots=True)
class Job:
    """One build; `seconds` are filled in as the stages end."""

    config: BuildConfig  # `threads` and `symmetric` hold what the build uses
    builder: Builder
    folder: Path
    progress: ReportProgress
    accelerator: Accelerator | None = None  # beside the processor
    seconds: dict[str, float] = field(default_factory=dict)  # wall time by stage

    @classmethod
    def of(
        cls,
        config: BuildConfig,
        builder: Builder,
        folder: Path,
        progress: ReportProgress,
        accelerator: Accelerator | None = None,
    ) -> Self:
        """The threads default to those of this process, the symmetry to that of the runtime."""
        threads = config.threads or usable_threads()
        symmetric = config.symmetric or builder.qdq_format.symmetric
        config = replace(config, threads=threads, symmetric=symmetric)
        return cls(config, builder, folder, progress, accelerator)

    @property
    def scheme(self) -> Scheme:
        """Of the activations."""
        return Scheme(self.config.symmetric, half=self.builder.qdq_format.half_scales)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a block that reports its own progress."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Report the start of a block that has no steps to count, and time it."""
        self.progress(Progress(name))
        with self.timed(name):
            yield


def choose_builder(
    config: BuildConfig, progress: ReportProgress
) -> tuple[Builder, Accelerator | None]:
    """The builder of the fastest runtime that works here, and the device beside the processor.

    Raises BadOption.
    """
    runtime = choose_runtime(config.device, config.runtime, detect(), config.target).runtime
    resources = Resources(config.workspace_mib, config.timing_caches)
    threads = config.threads or usable_threads()
    builder = load_builder(runtime, threads, resources, progress, config.target)
    accelerator = choose_accelerator(config, runtime)
    low = LOW_NAMES[builder.low_float] if builder.low_float else None
    fp8 = "fp8" if builder.qdq_format.float8 else None
    fp16 = "fp16" if accelerator and "f16" in accelerator.float_types else None
    if config.default not in (AUTO, "fp32", "int8", low, fp8, fp16):
        raise BadOption(
            "default",
            f"{config.default}: this processor or its runtime lacks it; leave out --default",
        )
    return builder, accelerator
