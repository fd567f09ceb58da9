"""Tiny graphs, read and quantized, and ONNX Runtime to execute them."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort

from quantizer.calibration.ranges import minmax
from quantizer.calibration.statistics import observe
from quantizer.compile.builder import Candidate
from quantizer.compile.candidates import candidates_for
from quantizer.compile.openvino_builder import OpenVinoBuilder
from quantizer.int8 import Scheme, activation_params
from quantizer.model.float_model import read_float_model
from quantizer.model.graph import Graph
from quantizer.model.map_layout import Maps, recognise_maps
from quantizer.qdq.format import TENSORRT, QdqFormat
from quantizer.qdq.insertion import insert_qdq
from quantizer.qdq.placement import plan_placement
from quantizer.qdq.weights import Weights
from service.engines import load_engine
from service.engines.onnxruntime_engine import EXACT_INT8
from service.manifest import Variant
from service.vision.preprocess import PREPROCESS
from tests.tiny_models import INPUT, SIZE, save_tiny

HERE = OpenVinoBuilder(1).qdq_format  # what this processor's int8 kernels compute without overflow


@cache
def graph_of(name: str) -> Graph:
    """A tiny model as a build reads it."""
    with TemporaryDirectory() as folder:
        return read_float_model(save_tiny(Path(folder), name), INPUT).graph


def maps_of(name: str) -> Maps | None:
    """The maps of a tiny model; None for relu, whose decode tail no layout describes."""
    maps = recognise_maps(graph_of(name), "yolov5" if name == "relu" else name, INPUT)
    return maps if isinstance(maps, Maps) else None


def candidates_of(name: str) -> dict[str, Candidate]:
    """Of a tiny model: those for an NVIDIA GPU with FP8, by their names."""
    graph = graph_of(name)
    int8 = quantized(graph, Scheme(symmetric=True, half=True), TENSORRT)
    how = PREPROCESS["yolox" if name == "yolox" else "yolo"]
    made = candidates_for(graph.model, int8, "f16", how, maps_of(name), float8=True)
    return {each.name: each for each in made}


def images(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.random((1, 3, SIZE, SIZE), np.float32) for _ in range(count)]


def quantized(graph: Graph, scheme: Scheme, qdq_format: QdqFormat = HERE) -> onnx.ModelProto:
    """Each group with the range of its last member in four images."""
    placement = plan_placement(graph, qdq_format=qdq_format)
    histograms = observe(graph, placement.tensors, images(4), 1).histograms
    by_group = {site.group: histograms[site.tensor] for site in placement.activations}
    params = {
        site.tensor: activation_params(minmax(by_group[site.group], None, scheme), scheme)
        for site in (*placement.activations, *placement.propagated)
    }
    return insert_qdq(graph, placement, params, Weights(graph, qdq_format.weight_scheme))


def served(variant: Variant, folder: Path, image: np.ndarray) -> np.ndarray:
    """The output of an engine in the folder for a canvas of bytes, or for a tensor of floats."""
    engine = load_engine(folder, variant, 1)
    raw = engine.infer(image)[0] if image.dtype == np.uint8 else engine.infer_tensor(image)
    engine.close()
    return raw


def by_onnxruntime(model: onnx.ModelProto, image: np.ndarray, optimised: bool = True) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(*EXACT_INT8)
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    return session.run(None, {"images": image})[0]
