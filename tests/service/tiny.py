"""A real model of one convolution, four cells and three classes, as a folder of two runtimes."""

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
from onnx import TensorProto, helper, numpy_helper

from service.engines.openvino_engine import blob_key, compile_options, with_byte_input
from service.manifest import Manifest, Variant, write_manifest
from service.vision.preprocess import PREPROCESS
from tests.fakes import manifest_of

SIZE, STRIDE, COLUMNS = 64, 32, 8
CELLS = (SIZE // STRIDE) ** 2
# Every cell has a 16x8 box at (32, 32) of class 0 with score 0.9; the image moves it slightly.
BIAS = np.array([32, 32, 16, 8, 0.9, 1.0, 0.0, 0.0], np.float32)


def tiny_model(weight: float = 1e-4, x: float = 32) -> onnx.ModelProto:
    """[1,3,64,64] -> [1,4,8], in the layout of YOLOv5; `x`: the centre of its boxes."""
    random = np.random.default_rng(0).standard_normal((COLUMNS, 3, STRIDE, STRIDE))
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["map"], strides=[STRIDE, STRIDE]),
        helper.make_node("Reshape", ["map", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["output"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, CELLS, COLUMNS])],
        [
            numpy_helper.from_array((random * weight).astype(np.float32), "w"),
            numpy_helper.from_array(np.array([x, *BIAS[1:]], np.float32), "b"),
            numpy_helper.from_array(np.array([1, COLUMNS, CELLS], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def write_onnxruntime(folder: Path, name: str, x: float = 32) -> Variant:
    (folder / name).mkdir(parents=True)
    onnx.save(tiny_model(x=x), folder / name / "model.onnx")
    return Variant(runtime="onnxruntime", precision="fp32", model=f"{name}/model.onnx")


def write_openvino(folder: Path, name: str, x: float = 32) -> Variant:
    (folder / name).mkdir(parents=True)
    core = ov.Core()
    model = core.read_model(tiny_model(x=x).SerializeToString())
    ov.save_model(model, folder / name / "model.xml", compress_to_fp16=False)
    compiled = core.compile_model(
        with_byte_input(model, PREPROCESS["yolo"]), "CPU", compile_options(1)
    )
    (folder / name / "model.blob").write_bytes(compiled.export_model().getvalue())
    return Variant(
        runtime="openvino",
        precision="fp32",
        model=f"{name}/model.xml",
        blob=f"{name}/model.blob",
        blob_key=blob_key(),
    )


def write_model_folder(folder: Path, x: float = 32, **changes: object) -> Manifest:
    """One variant for each runtime, and a report; `changes` of the manifest."""
    variants = {
        "fp32": write_onnxruntime(folder, "fp32", x),
        "other": write_openvino(folder, "other", x),
    }
    (folder / "report.json").write_text('{"made": "here"}')
    manifest = manifest_of("fp32", default="other", variants=variants, **changes)
    write_manifest(folder, manifest)
    return manifest
