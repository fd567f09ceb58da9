"""The verdict of NVIDIA's compiler: TensorRT for RTX compiles our graphs without a GPU."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bench.quantization.gpu_layers import graph_of as model_of
from bench.quantization.gpu_layers import quantized
from quantizer.compile.builder import Built, Candidate
from quantizer.compile.load import load_builder
from quantizer.compile.workload import share_in_int8
from quantizer.errors import BuildFailed
from quantizer.model.graph import layer_name
from quantizer.model.map_layout import Maps, recognise_maps
from quantizer.qdq.float8 import to_float8
from quantizer.qdq.placement import plan_placement
from service.engines.gpu import RTX_TARGETS
from service.vision.input_size import InputSize
from tests.quantizer.graphs import candidates_of, graph_of
from tests.shared import YOLOV5N, YOLOX_NANO, needs_shared
from tests.tiny_models import TINY

pytestmark = pytest.mark.usefixtures("compiler")

WITH_INT8 = [target for target in RTX_TARGETS if target != "sm75"]


def compiled(candidate: Candidate, *targets: str) -> Built:
    with TemporaryDirectory() as folder:
        return load_builder("tensorrt-rtx", 1, targets=targets).compile(candidate, Path(folder))


def precisions(built: Built, layers: set[str] | frozenset[str] | None = None) -> set[str]:
    return {each for name, each in built.executed.items() if layers is None or name in layers}


@pytest.fixture(autouse=True)
def no_warnings(caplog):
    """TensorRT warns of nothing but what is known."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [each.message for each in caplog.records] == []


@pytest.mark.parametrize("name", TINY)
def test_every_head_compiles_for_every_gpu_in_the_types_of_its_graph(name):
    candidates, planned = candidates_of(name), set(plan_placement(graph_of(name)).layers)
    for variant, expected in (("fp32", {"f32"}), ("fp16", {"f16"})):
        oldest_and_newest = RTX_TARGETS[0], RTX_TARGETS[-1]
        assert precisions(compiled(candidates[variant], *oldest_and_newest), planned) == expected
    int8 = compiled(candidates["int8-f16"], *WITH_INT8)
    assert {name for name, each in int8.executed.items() if each == "i8"} == planned


@pytest.mark.parametrize(
    ("name", "head"),
    [
        pytest.param(str(YOLOV5N), "yolov5", marks=needs_shared),
        pytest.param(str(YOLOX_NANO), "yolox", marks=needs_shared),
        ("yolov5s", "yolov5"),
        ("yolov7", "yolov5"),
    ],
)
def test_of_real_models_every_planned_convolution_reads_int8(name, head):
    graph = model_of(name)
    planned = plan_placement(graph).layers
    maps = recognise_maps(graph, head, InputSize.of(640))
    assert isinstance(maps, Maps)
    int8 = compiled(Candidate("int8", quantized(graph), "f16", maps=maps), "sm89")
    assert share_in_int8(graph, int8.executed, planned) == 1.0
    assert all(layer.moved for layer in int8.layers)


def test_a_turing_gpu_gets_its_int8_convolutions_in_float():
    """So TensorRT for RTX gains nothing from int8 on a T4; the build then keeps them float."""
    graph = graph_of("yolov5")
    candidate = Candidate("int8", quantized(graph), "f16")
    assert precisions(compiled(candidate, "sm75")) == {"f16"}
    both = compiled(candidate, "sm75", "sm89")  # a plan for each, or sm89 had no int8 either
    assert precisions(both) == {"sm75 f16, sm89 i8"}
    assert both.variant.plans.keys() == {"sm75", "sm89"}


class Edited:
    """The quantized tiny YOLOv5, and its nodes and constants by name."""

    def __init__(self) -> None:
        self.model = quantized(graph_of("yolov5"))
        self.convolution = next(n for n in self.model.graph.node if n.op_type == "Conv")
        made_by = {output: n for n in self.model.graph.node for output in n.output}
        self.activation = made_by[self.convolution.input[0]]  # its DequantizeLinear
        self.weight = made_by[self.convolution.input[1]]

    def value(self, name: str) -> np.ndarray:
        (tensor,) = (each for each in self.model.graph.initializer if each.name == name)
        return numpy_helper.to_array(tensor)

    def constant(self, node: onnx.NodeProto, index: int, value: np.ndarray) -> None:
        """A new constant as the input of a node."""
        name = f"{node.name}/edited_{index}"
        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        if len(node.input) > index:
            node.input[index] = name
        else:
            node.input.append(name)


def nonzero_zero_point(edited: Edited) -> onnx.NodeProto:
    edited.constant(edited.weight, 2, edited.value(edited.weight.input[2]) + np.int8(3))
    return edited.weight


def unsigned_weight(edited: Edited) -> onnx.NodeProto:
    steps = edited.value(edited.weight.input[0])
    edited.constant(edited.weight, 0, np.ones_like(steps, np.uint8))
    edited.constant(edited.weight, 2, np.zeros(len(steps), np.uint8))
    return edited.weight


def negative_scale(edited: Edited) -> onnx.NodeProto:
    edited.constant(edited.weight, 1, -edited.value(edited.weight.input[1]))
    return edited.weight


def too_few_scales(edited: Edited) -> onnx.NodeProto:
    for index in (1, 2):
        edited.constant(edited.weight, index, edited.value(edited.weight.input[index])[:-1])
    return edited.weight


def quantized_bias(edited: Edited) -> onnx.NodeProto:
    bias = edited.value(edited.convolution.input[2])
    made = helper.make_node("DequantizeLinear", ["steps", "step"], ["bias"], name="offset", axis=0)
    for name, value in (("steps", np.ones_like(bias, np.int32)), ("step", np.ones_like(bias))):
        edited.model.graph.initializer.append(numpy_helper.from_array(value, name))
    edited.convolution.input[2] = "bias"
    edited.model.graph.node.insert(0, made)
    return made


def half_bias_of_floats(edited: Edited) -> onnx.NodeProto:
    edited.constant(
        edited.convolution, 2, edited.value(edited.convolution.input[2]).astype(np.float16)
    )
    return edited.convolution


@pytest.mark.parametrize(
    "edit",
    [
        nonzero_zero_point,
        unsigned_weight,
        negative_scale,
        too_few_scales,
        quantized_bias,
        half_bias_of_floats,
    ],
)
def test_what_the_parser_refuses_ends_the_build_with_the_name_of_the_node(edit, caplog):
    edited = Edited()
    node = edit(edited)
    with pytest.raises(BuildFailed, match="TensorRT for RTX cannot read the int8 graph") as failed:
        compiled(Candidate("int8", edited.model), "sm89")
    assert layer_name(node) in str(failed.value)
    caplog.clear()


def test_a_layer_of_which_only_the_input_is_quantized_runs_in_float():
    edited = Edited()
    shape = edited.value(edited.weight.input[0]).shape
    edited.constant(edited.convolution, 1, np.ones(shape, np.float32))
    executed = compiled(Candidate("int8", edited.model), "sm89").executed
    assert executed[layer_name(edited.convolution)] == "f32"
    assert set(executed.values()) == {"f32", "i8"}


def test_scales_on_another_axis_than_the_output_channels_keep_a_layer_in_float():
    edited = Edited()
    inputs = edited.value(edited.weight.input[0]).shape[1]
    edited.constant(edited.weight, 1, np.full(inputs, 0.01, np.float32))
    edited.constant(edited.weight, 2, np.zeros(inputs, np.int8))
    edited.weight.ClearField("attribute")
    edited.weight.attribute.append(helper.make_attribute("axis", 1))
    executed = compiled(Candidate("int8", edited.model), "sm89").executed
    assert executed[layer_name(edited.convolution)] == "f32"


@pytest.mark.parametrize(
    ("target", "answer"),
    [("sm86", "contains HW-specific datatypes: fp8_e4m3"), ("sm89", None), ("sm120", None)],
)
def test_fp8_is_compiled_only_for_gpus_that_have_it(target, answer, caplog):
    graph = graph_of("yolov5")
    candidate = Candidate("fp8", to_float8(quantized(graph), graph.model), "f16")
    if answer is not None:
        with pytest.raises(BuildFailed, match=answer):
            compiled(candidate, target)
        caplog.clear()
    else:
        executed = list(compiled(candidate, target).executed.values())
        assert executed.count("f8") >= len(executed) - 2  # but for the stem and one other
