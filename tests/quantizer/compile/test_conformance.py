"""A network that keeps every rule, and edits that each break one rule alone."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantizer.compile.conformance import RULES, Consequence, check
from quantizer.compile.conformance.fusion import has_int8_kernel
from quantizer.int8 import Scheme
from quantizer.model.graph import Graph
from quantizer.qdq.float16 import to_float16
from quantizer.qdq.format import TENSORRT
from tests.quantizer.graphs import graph_of, quantized
from tests.tiny_models import TINY, Sketch

STEP = 2.0**-5  # a scale that float16 holds


class QuantizedSketch(Sketch):
    """int8 layers as the guide has them, with float32 or float16 between them."""

    def __init__(self, half: bool = False, opset: int = 19) -> None:
        super().__init__(opset=opset)
        self.real = np.float16 if half else np.float32

    def pair(self, name: str, x: str) -> str:
        """Nodes `name`.q and `name`.dq."""
        scale = self.constant(f"{name}.scale", STEP, self.real)
        zero = self.constant(f"{name}.zero", 0, np.int8)
        q = self.node("QuantizeLinear", f"{name}.q", x, scale, zero)
        return self.node("DequantizeLinear", f"{name}.dq", q, scale, zero)

    def weight(self, name: str, shape: tuple[int, ...], axis: int) -> str:
        """Node `name`.weight on the constants `name`.steps, .scale and .zero."""
        steps = self.constant(f"{name}.steps", self._random.integers(-127, 128, shape), np.int8)
        scale = self.constant(f"{name}.scale", np.full(shape[axis], STEP), self.real)
        zero = self.constant(f"{name}.zero", np.zeros(shape[axis]), np.int8)
        return self.node("DequantizeLinear", f"{name}.weight", steps, scale, zero, axis=axis)

    def conv8(
        self,
        name: str,
        x: str,
        channels: tuple[int, int],
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> str:
        read, made = channels
        weight = self.weight(name, (made, read // groups, kernel, kernel), 0)
        bias = self.constant(f"{name}.bias", np.zeros(made), self.real)
        size = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return self.node("Conv", name, x, weight, bias, group=groups, **size)

    def conv8_silu(self, name: str, x: str, channels: tuple[int, int], *shape: int) -> str:
        return self.silu(name, self.conv8(name, x, channels, *shape))


def conformant(half: bool = False, opset: int = 19) -> onnx.ModelProto:
    s = QuantizedSketch(half, opset)
    x = s.node("Cast", "halved", "images", to=TensorProto.FLOAT16) if half else "images"
    x = s.conv8_silu("stem", s.pair("image", x), (3, 16), 3, 2)
    skip = s.pair("stem.out", x)
    x = s.pair("cv1.out", s.conv8_silu("cv1", skip, (16, 16)))
    x = s.node("Add", "add", skip, s.conv8_silu("cv2", x, (16, 16), 3))
    wide = s.pair("add.out", x)
    pool = s.node("MaxPool", "pool", wide, kernel_shape=[2, 2], strides=[2, 2])
    up = s.pair("up.out", s.upsample("up", s.pair("pool.out", pool)))
    x = s.pair("cat.out", s.concat("cat", wide, up))
    x = s.pair("dw.out", s.conv8_silu("dw", x, (32, 32), 3, 1, 32))
    x = s.pair("part.out", s.take("part", x, 0, 16, 1))
    weight = s.weight("deconv", (16, 32, 2, 2), 1)
    x = s.pair("deconv.out", s.node("ConvTranspose", "deconv", x, weight, strides=[2, 2]))
    x = s.conv8("last", x, (32, 16))
    x = s.node("Cast", "decoded", x, to=TensorProto.FLOAT) if half else x
    return s.model(s.node("Sigmoid", "scores", x), rank=4)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(each for each in model.graph.node if each.name == name)


def constant(model: onnx.ModelProto, name: str, value: object, dtype: type) -> str:
    """Replaces a constant of this name, if there is one."""
    kept = [each for each in model.graph.initializer if each.name != name]
    model.graph.ClearField("initializer")
    tensor = numpy_helper.from_array(np.asarray(value, dtype), name)
    model.graph.initializer.extend([*kept, tensor])
    return name


def insert(
    model: onnx.ModelProto, before: str, kind: str, name: str, *inputs: str, **attributes: object
) -> str:
    """A new node in front of one that reads its output."""
    made = helper.make_node(kind, list(inputs), [f"{name}.y"], name=name, **attributes)
    index = list(model.graph.node).index(node(model, before))
    model.graph.node.insert(index, made)
    return f"{name}.y"


def insert_pair(model: onnx.ModelProto, before: str, name: str, x: str) -> str:
    parameters = (
        constant(model, f"{name}.scale", STEP, np.float32),
        constant(model, f"{name}.zero", 0, np.int8),
    )
    q = insert(model, before, "QuantizeLinear", f"{name}.q", x, *parameters)
    return insert(model, before, "DequantizeLinear", f"{name}.dq", q, *parameters)


def remove(model: onnx.ModelProto, *names: str) -> None:
    kept = [each for each in model.graph.node if each.name not in names]
    model.graph.ClearField("node")
    model.graph.node.extend(kept)


def set_axis(model: onnx.ModelProto, name: str, axis: int | None) -> None:
    changed = node(model, name)
    changed.ClearField("attribute")
    if axis is not None:
        changed.attribute.append(helper.make_attribute("axis", axis))


FATAL = "build failure"
FLOAT = "no int8 kernel"
Edit = Callable[[onnx.ModelProto], object]


ZEROS, SCALES = np.zeros(16, np.int8), np.full(16, STEP, np.float32)


def last(values: np.ndarray, value: float) -> np.ndarray:
    """The values with another one at the end."""
    return np.append(values[:-1], values.dtype.type(value))


# A rule, the node at which it is broken, and the constants that break it by other values.
VALUES = [
    ("zero_point_is_zero", "cv1.weight", FATAL, {"cv1.zero": last(ZEROS, 3)}),
    ("integers_are_signed", "cv1.out.q", FATAL, {"cv1.out.zero": np.uint8(0)}),
    (
        *("integers_are_signed", "cv1.weight", FATAL),
        {"cv1.steps": np.ones((16, 16, 1, 1), np.uint8), "cv1.zero": ZEROS.astype(np.uint8)},
    ),
    *(
        ("scale_is_positive", "cv1.weight", FATAL, {"cv1.scale": last(SCALES, worst)})
        for worst in (0.0, -STEP, np.inf, np.nan)
    ),
    (
        *("activation_has_one_scale", "cv1.out.q", FATAL),
        {"cv1.out.scale": SCALES, "cv1.out.zero": ZEROS},
    ),
    (
        *("scales_are_as_many_as_channels", "cv1.weight", FATAL),
        {"cv1.scale": SCALES[:15], "cv1.zero": ZEROS[:15]},
    ),
    ("scales_are_as_many_as_channels", "cv1.weight", FATAL, {"cv1.zero": np.int8(0)}),
    ("concat_has_one_scale", "cat", "reformat", {"cat.out.scale": np.float32(2 * STEP)}),
    (
        "pass_through_op_keeps_the_scale",
        "part",
        "reformat",
        {"part.out.scale": np.float32(2 * STEP)},
    ),
    (
        *("weight_has_a_scale_for_each_channel", "cv1.weight", "accuracy"),
        {"cv1.scale": np.float32(STEP), "cv1.zero": np.int8(0)},
    ),
]
BREACHES = []


def breaks(rule: str, at: str, consequence: Consequence, **kind: object) -> Callable[[Edit], Edit]:
    """Marks an edit of the conformant network of this kind, which breaks a rule at a node."""

    def mark(edit: Edit) -> Edit:
        BREACHES.append(
            pytest.param(edit, (rule, at, consequence), kind, id=f"{rule}-{edit.__name__}")
        )
        return edit

    return mark


for rule, at, consequence, values in VALUES:

    @breaks(rule, at, consequence)
    def other_values(model, values=values):
        for name, value in values.items():
            constant(model, name, value, value.dtype)


@breaks("opset_knows_the_scale", "cv1.weight", FATAL, opset=18)
def half_scale_too_early(model):
    constant(model, "cv1.scale", SCALES, np.float16)


@breaks("types_agree", "cv1", FATAL, half=True)
def float_bias_of_halves(model):
    constant(model, "cv1.bias", ZEROS, np.float32)


@breaks("zero_point_is_zero", "cv1.weight", FATAL)
def computed_zero_point(model):
    node(model, "cv1.weight").input[2] = insert(
        model, "cv1.weight", "Identity", "computed", "cv1.zero"
    )


@breaks("scale_is_constant", "cv1.weight", FATAL)
def computed_scale(model):
    node(model, "cv1.weight").input[1] = insert(
        model, "cv1.weight", "Identity", "computed", "cv1.scale"
    )


@breaks("quantized_is_dequantized", "cv1.out.q", FATAL)
def integers_that_another_node_reads(model):
    insert(model, "cv1.out.dq", "Cast", "stray", "cv1.out.q.y", to=TensorProto.FLOAT)


@breaks("dequantized_was_quantized", "stray", FATAL)
def integers_from_outside(model):
    outside = helper.make_tensor_value_info("outside", TensorProto.INT8, [1, 16, 32, 32])
    model.graph.input.append(outside)
    insert(model, "cv1", "DequantizeLinear", "stray", "outside", "cv1.out.scale", "cv1.out.zero")


@breaks("bias_is_float", "cv1.offset", FATAL)
def quantized_bias(model):
    constant(model, "cv1.bias", np.ones(16), np.int32)
    node(model, "cv1").input[2] = insert(
        model, "cv1", "DequantizeLinear", "cv1.offset", "cv1.bias", "cv1.scale", axis=0
    )


@breaks("opset_knows_the_scale", "stem.weight", FATAL)
def older_than_axes(model):
    """With one convolution left: each of them breaks the rule."""
    model.opset_import[0].version = 12
    kept = [
        each
        for each in model.graph.node
        if each.name.startswith(("image", "stem")) and "out" not in each.name
    ]
    model.graph.ClearField("node")
    model.graph.node.extend(kept)
    model.graph.output[0].name = "stem.act.y"


@breaks("types_agree", "cv1.out.q", FATAL, half=True)
def float_scale_of_halves(model):
    node(model, "cv1.out.q").input[1] = constant(model, "other.scale", STEP, np.float32)


@breaks("types_agree", "sum", FATAL, half=True)
def float_term_of_halves(model):
    node(model, "scores").input[0] = insert(
        model, "scores", "Add", "sum", "decoded.y", constant(model, "term", 1, np.float16)
    )


@breaks("both_inputs_are_quantized", "cv1", FLOAT)
def float_weight(model):
    node(model, "cv1").input[1] = constant(model, "w", np.ones((16, 16, 1, 1)), np.float32)


@breaks("both_inputs_are_quantized", "last", FLOAT)
def float_input(model):
    node(model, "last").input[0] = insert(model, "last", "Neg", "negative", "deconv.out.dq.y")


@breaks("weight_has_scales_on_its_output_channels", "cv1.weight", FLOAT)
def scales_of_the_inputs(model):
    set_axis(model, "cv1.weight", 1)


@breaks("weight_has_scales_on_its_output_channels", "deconv.weight", FLOAT)
def scales_of_the_inputs_of_a_deconvolution(model):
    set_axis(model, "deconv.weight", 0)
    constant(model, "deconv.scale", np.full(16, STEP), np.float32)
    constant(model, "deconv.zero", np.zeros(16), np.int8)


@breaks("weight_has_scales_on_its_output_channels", "cv1.weight", FLOAT)
def scales_of_no_axis(model):
    set_axis(model, "cv1.weight", None)


@breaks("convolution_has_an_int8_kernel", "last", FLOAT)
def odd_kernel(model):
    constant(model, "last.steps", np.ones((8, 32, 1, 3)), np.int8)
    for name, dtype in (("scale", np.float32), ("zero", np.int8), ("bias", np.float32)):
        constant(model, f"last.{name}", np.full(8, STEP), dtype)
    changed = node(model, "last")
    changed.ClearField("attribute")
    changed.attribute.append(helper.make_attribute("kernel_shape", [1, 3]))


@breaks("other_term_is_quantized", "add", "reformat")
def float_skip(model):
    node(model, "add").input[0] = insert(model, "add", "Neg", "negative", "stem.out.dq.y")


@breaks("term_of_a_convolution_is_not_quantized", "cv2.out.q", "reformat")
def quantized_main_branch(model):
    node(model, "add").input[1] = insert_pair(model, "add", "cv2.out", "cv2.act.y")


@breaks("concat_has_one_scale", "cat", "reformat")
def concat_of_a_float(model):
    remove(model, "up.out.q", "up.out.dq")
    node(model, "cat").input[1] = "up.y"


@breaks("concat_has_one_scale", "cat", "reformat")
def concat_read_in_float(model):
    remove(model, "cat.out.q", "cat.out.dq")
    node(model, "dw").input[0] = insert_pair(
        model, "dw", "later", insert(model, "dw", "Neg", "negative", "cat.y")
    )


@breaks("pass_through_op_keeps_the_scale", "same", "reformat")
def passed_on_to_another_scale(model):
    node(model, "part.out.q").input[0] = insert(model, "part.out.q", "Identity", "same", "part.y")
    constant(model, "part.out.scale", 2 * STEP, np.float32)


@breaks("quantized_is_not_read_in_float", "cv1.act", "reformat")
def read_in_float(model):
    insert(model, "cv1.out.q", "Neg", "stray", "cv1.act.y")


@breaks("quantized_is_not_read_in_float", "cv1.act", "reformat")
def read_by_the_caller(model):
    wanted = helper.make_tensor_value_info("cv1.act.y", TensorProto.FLOAT, None)
    model.graph.output.append(wanted)


@breaks("pair_has_one_scale", "image.dq", "accuracy")
def pair_of_two_scales(model):
    node(model, "image.dq").input[1] = constant(model, "other.scale", 2 * STEP, np.float32)


@breaks("quantized_to_int8_by_name", "image.q", "accuracy")
def no_zero_point(model):
    for name in ("image.q", "image.dq"):
        del node(model, name).input[2:]


@breaks("activation_function_reads_exact_sums", "early.q", "accuracy")
def quantized_before_silu(model):
    made = insert_pair(model, "cv1.gate", "early", "cv1.y")
    node(model, "cv1.gate").input[0] = made
    node(model, "cv1.act").input[0] = made


@pytest.mark.parametrize(("half", "opset"), [(False, 13), (False, 19), (True, 19)])
def test_a_conformant_network_has_no_findings(half, opset):
    model = conformant(half, opset)
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    assert Graph.of(model).constants["cv1.scale"].data_type == kind
    onnx.checker.check_model(model, full_check=True)
    before = model.SerializeToString()
    assert check(model) == []
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("edit", "breach", "kind"), BREACHES)
def test_one_violation_is_one_finding(edit, breach, kind):
    model = conformant(**kind)
    edit(model)
    assert [(each.rule, each.node, each.consequence) for each in check(model)] == [breach]


def test_every_rule_has_a_violation_and_a_docstring():
    rules = {rule.__name__: rule for of_one in RULES.values() for rule in of_one}
    assert {each.values[1][0] for each in BREACHES} == set(rules)
    assert all(rule.__doc__ for rule in rules.values())


@pytest.mark.parametrize("name", TINY)
def test_a_float_graph_has_no_findings(name):
    model = graph_of(name).model
    assert check(model) == []
    assert check(to_float16(model)) == []


@pytest.mark.parametrize("name", TINY)
def test_graphs_in_tensorrts_format_are_conformant(name):
    """Except that tiny models have too few channels for some kernels."""
    model = quantized(graph_of(name), Scheme(symmetric=True, half=True), TENSORRT)
    for written in (model, to_float16(model)):
        assert {each.rule for each in check(written)} <= {"convolution_has_an_int8_kernel"}


@pytest.mark.parametrize(
    ("weight", "groups", "first", "has"),
    [
        ((16, 16, 1, 3), 1, False, True),
        ((80, 64, 1, 1), 1, False, True),
        ((4, 64, 1, 1), 1, False, True),
        ((16, 3, 3, 3), 1, True, True),
        ((8, 3, 3, 3), 1, True, True),
        ((9, 3, 3, 3), 1, True, False),
        ((16, 3, 3, 5), 1, True, False),
        ((8, 8, 3, 3), 1, False, False),
        ((12, 20, 1, 1), 1, False, False),
        ((32, 1, 3, 3), 32, False, True),
        ((32, 1, 1, 1), 32, False, False),
        ((12, 1, 3, 3), 12, False, False),
    ],
)
def test_the_shapes_with_an_int8_kernel_are_those_of_the_table(weight, groups, first, has):
    assert has_int8_kernel(weight, groups, first) is has


@pytest.mark.parametrize(
    ("kind", "attributes", "shape", "axis"),
    [
        ("Gemm", {"transB": 1}, (8, 4), 0),
        ("Gemm", {}, (4, 8), 1),
        ("MatMul", {}, (4, 8), 1),
        ("MatMul", {}, (4, 8), -1),
    ],
)
def test_the_output_channels_of_a_matrix_are_on_the_axis_of_its_operator(
    kind, attributes, shape, axis
):
    def found(along: int) -> list[str]:
        s = QuantizedSketch()
        x = s.pair("x", s.reshape("rows", "images", [-1, 4]))
        made = s.node(kind, "product", x, s.weight("product", shape, along), **attributes)
        return [each.rule for each in check(s.model(made, rank=2))]

    assert found(axis) == []
    assert found(1 - axis % 2) == ["weight_has_scales_on_its_output_channels"]


def test_constant_nodes_are_constants():
    model = conformant()
    (scale,) = (each for each in model.graph.initializer if each.name == "cv1.scale")
    node_of_scale = helper.make_node("Constant", [], ["cv1.scale"], value=scale)
    model.graph.initializer.remove(scale)
    model.graph.node.insert(0, node_of_scale)
    assert check(model) == []


def test_a_sum_that_no_convolution_can_fuse_breaks_no_rule():
    """The second convolution, which is float, also reads the output of the first."""
    s = QuantizedSketch()
    x = s.conv8_silu("a", s.pair("image", "images"), (3, 16), 3)
    total = s.node("Add", "add", x, s.conv_silu("b", x, (16, 16), 3))
    assert check(s.model(total, rank=4)) == []
