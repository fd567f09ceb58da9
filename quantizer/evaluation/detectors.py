"""The detectors to evaluate: every variant of a model folder, or a bare ONNX graph.

A bare graph needs no model folder: ONNX Runtime executes it on the CPU.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx

from quantizer.model.execution import open_session
from quantizer.model.graph import Graph
from quantizer.model.layout import FloatDetector
from quantizer.model.map_layout import Maps
from quantizer.model.projected import projected_layout
from quantizer.model.top_anchors import top_layout
from quantizer.qdq.emulation import in_float16
from quantizer.versions import sha256_of, versions
from service.inference.detector import Detector
from service.manifest import DEVICE_OF, Manifest, Variant
from service.vision.detections import Floats, Outputs, as_output
from service.vision.maps import MapLayout
from service.vision.preprocess import PREPROCESS, Canvas, Preprocess, tensor_of


@contextmanager
def open_variants(folder: Path, manifest: Manifest, threads: int) -> Iterator[dict[str, Detector]]:
    """The detector of each variant, by its name; closed at the end of the block.

    Raises what `load_engine` raises.
    """
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(closing(Detector.load(folder, manifest, name, threads)))
            for name in manifest.variants
        }


class GraphEngine:
    """An `Engine` that executes a graph in ONNX Runtime on the CPU; it reads bytes or floats."""

    def __init__(self, model: onnx.ModelProto, threads: int, preprocess: Preprocess) -> None:
        self._session = open_session(model, threads)
        self._preprocess = preprocess
        (source,) = self._session.get_inputs()
        self._input, self._reads_bytes = source.name, source.type == "tensor(uint8)"

    def infer(self, image: Canvas) -> Outputs:
        return self._run(image if self._reads_bytes else tensor_of(image, self._preprocess))

    def infer_tensor(self, tensor: Floats) -> Floats:
        return np.asarray(self._run(tensor)[0], np.float32)

    def _run(self, image: Canvas | Floats) -> Outputs:
        outputs = self._session.run(None, {self._input: image})
        return tuple(map(as_output, outputs))

    def close(self) -> None:
        """The session holds only memory."""


@contextmanager
def open_graphs(folder: Path, manifest: Manifest, threads: int) -> Iterator[dict[str, Detector]]:
    """As `open_variants`, for engines of a GPU elsewhere: ONNX Runtime executes their graphs.

    Each value that a graph holds in float16 is rounded to float16.
    """
    yield {
        name: graph_detector(
            in_float16(onnx.load(folder / each.model)), manifest, threads, manifest.maps_of(name)
        )
        for name, each in manifest.variants.items()
    }


def graph_detector(
    model: onnx.ModelProto, manifest: Manifest, threads: int, maps: MapLayout | None = None
) -> Detector:
    """The detector of a graph whose output is that which the manifest describes, or is `maps`."""
    how = PREPROCESS[manifest.preprocess]
    return Detector(GraphEngine(model, threads, how), manifest, maps)


def describe(
    path: Path,
    detector: FloatDetector,
    variants: Mapping[str, Variant] | None = None,
    maps: Maps | None = None,
) -> Manifest:
    """The manifest of a model that was read from `path`; fp32 is the default.

    Without `variants` it describes the bare float graph. `maps` are those at which the variants
    end.
    """
    bare = Variant(runtime="onnxruntime", precision="fp32", model=path.name)
    variants = dict(variants or {"fp32": bare})
    return Manifest(
        name=path.stem,
        device=DEVICE_OF[variants["fp32"].runtime],
        size=detector.size,
        head=detector.layout.head,
        preprocess=detector.layout.preprocess,
        class_names=detector.layout.class_names,
        input_name=detector.graph.input,
        output_name=detector.graph.outputs[0],
        output_shape=detector.output_shape,
        maps=_returned(detector.graph, maps, variants.values()),
        default="fp32",
        variants=variants,
        source_sha256=sha256_of(path),
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _returned(graph: Graph, maps: Maps | None, variants: Iterable[Variant]) -> MapLayout | None:
    """How the outputs of the variants are read; None where they are the model's own."""
    runtimes = {each.runtime for each in variants if each.raw is not None}
    if maps is None or not runtimes:
        return None
    if runtimes <= {"tensorrt", "tensorrt-rtx"}:
        return top_layout(maps.layout)
    return projected_layout(graph, maps)
