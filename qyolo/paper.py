"""The speed table of the Q-YOLO paper on this machine: its models with random weights.

Speed does not depend on the values of the weights. Every layer that can be is quantized.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

import onnx

from quantizer.build import build
from quantizer.compile.workload import macs, share_in_int8
from quantizer.config import BuildConfig
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from quantizer.report.data import Report
from quantizer.study.networks import ARCHITECTURES, SIZE
from service.progress import ReportProgress
from service.vision.input_size import InputSize

MODELS: Final = ("yolov5s", "yolov5m", "yolov7", "yolov7x")
# Milliseconds of one 640x640 image, fp32 and int8: the paper's table 4, https://arxiv.org/abs/2307.04816
PUBLISHED: Final[Mapping[str, Mapping[str, tuple[float, float]]]] = {
    "yolov5s": {"RTX 4090": (4.9, 3.0), "Tesla T4": (7.1, 4.5)},
    "yolov7": {"RTX 4090": (16.8, 5.4), "Tesla T4": (22.4, 7.8)},
}


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One model: `int8_share` of the quantized layers' multiplications run in int8 kernels.

    `moved_mb` is what the kernels of one image read and write, where the compiler lists them;
    `published_ms` the paper's fp32 and int8 by GPU.
    """

    model: str
    gmac: float
    int8_share: float
    moved_mb: Mapping[str, float]
    ms: Mapping[str, float]
    published_ms: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, name: str, graph: Graph, report: Report) -> Self:
        planned = [layer.layer for layer in report.layers if layer.planned == "int8"]
        executed = {layer.layer: layer.executed["int8"] for layer in report.layers}
        return cls(
            model=name,
            gmac=round(sum(macs(graph).values()) / 1e9, 2),
            int8_share=round(share_in_int8(graph, executed, planned), 4),
            moved_mb={
                variant: round(sum(layer.moved for layer in layers) / 1e6, 1)
                for variant, layers in report.engine_layers.items()
            },
            ms=report.ms,
            published_ms=PUBLISHED.get(name, {}),
        )


def measure(
    config: BuildConfig,
    progress: ReportProgress,
    models: Mapping[str, Callable[[], onnx.ModelProto]] | None = None,
) -> tuple[PaperRow, ...]:
    """Build each model as `config` says and time its variants; raises what `build` does."""
    chosen = models or {name: ARCHITECTURES[name] for name in MODELS}
    return tuple(_row(name, make(), config, progress) for name, make in chosen.items())


def _row(
    name: str, model: onnx.ModelProto, config: BuildConfig, progress: ReportProgress
) -> PaperRow:
    with TemporaryDirectory() as scratch:
        path, folder = Path(scratch) / f"{name}.onnx", Path(scratch) / "built"
        folder.mkdir()
        onnx.save(model, path)
        # With random weights there is no accuracy to keep by float layers.
        report = build(
            replace(config, model=path, size=InputSize.of(SIZE), min_sqnr=0.0), folder, progress
        )
        return PaperRow.of(name, read_float_model(path, InputSize.of(SIZE)).graph, report)
