from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from quantizer.errors import BadOption, UnsupportedModel
from quantizer.model.coco_names import COCO_NAMES
from quantizer.model.float_model import read_float_model
from quantizer.model.layout import Layout, read_detector, recognise
from service.vision.input_size import InputSize
from tests.shared import YOLOV5N, YOLOX_NANO, needs_shared
from tests.tiny_models import (
    CELLS,
    CLASSES,
    INPUT,
    OWN,
    SIZE,
    TINY,
    C,
    Sketch,
    end2end,
    yolov5,
    yolov8,
    yolox,
)

EXPECTED = {
    "yolov5": ("yolov5", "yolo"),
    "yolox": ("yolox", "yolox"),
    "yolov8": ("yolov8", "yolo"),
    "end2end": ("end2end", "yolo"),
    "relu": ("yolov8", "yolo"),
}


def layout_of(model: onnx.ModelProto, folder: Path, **options: object) -> Layout:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return recognise(read_float_model(path, INPUT), **options).layout


def named(model: onnx.ModelProto, **metadata: str) -> onnx.ModelProto:
    """The model with this metadata instead of its own."""
    del model.metadata_props[:]
    helper.set_model_props(model, metadata)
    return model


def of_shape(*shape: int, decoded: bool = True) -> onnx.ModelProto:
    """A backbone with an output of any shape."""
    s = Sketch()
    x = s.conv_silu("stem", "images", (3, 8), 3, 8)
    count = prod(shape)
    x = s.conv("raw", x, (8, -(-count // 64)))
    if count % 64:
        x = s.take("cut", s.reshape("flat", x, [1, -1]), 0, count, 1)
    x = s.reshape("shaped", x, shape)
    return s.model(s.times("decode", x, 8) if decoded else x, rank=len(shape))


@pytest.mark.parametrize("name", TINY)
def test_the_layout_is_recognised(name, tmp_path):
    assert layout_of(TINY[name](), tmp_path) == Layout(*EXPECTED[name], CLASSES)


@needs_shared
@pytest.mark.parametrize(("path", "name"), [(YOLOV5N, "yolov5"), (YOLOX_NANO, "yolox")])
def test_the_layout_of_a_real_model_is_recognised(path, name):
    layout = recognise(read_float_model(path, InputSize.of(640))).layout
    assert layout == Layout(*EXPECTED[name], COCO_NAMES)


def test_a_yolox_that_decodes_in_its_graph_keeps_its_preprocessing(tmp_path):
    s = Sketch()
    x = s.conv_silu("stem", "images", (3, 8), 3, 8)
    x = s.reshape("rows", s.conv("raw", x, (8, 8 + 3)), [1, 88, 8])
    x = s.times("decode", s.node("Exp", "exp", x), 8)
    layout = layout_of(named(s.model(x), names=str(list(CLASSES))), tmp_path)
    assert (layout.head, layout.preprocess) == ("yolov5", "yolox")


def test_arguments_override_what_the_graph_shows(tmp_path):
    layout = layout_of(yolox(), tmp_path, head="yolov5", preprocess="yolo")
    assert (layout.head, layout.preprocess) == ("yolov5", "yolo")


UNKNOWN = {
    "a classifier": ((1, 1000), "after Mul"),
    "an undecoded map": ((1, 3, 8, 8, 8), "after Mul"),
    "rows that are not the cells": ((1, 10, 50), "after Mul"),
    "a batch of two": ((2, 252, 8), "after Mul"),
    "rows without a decode": ((1, 128, 16), "after Reshape"),
}


@pytest.mark.parametrize(("shape", "tail"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_head_is_refused_and_its_output_described(shape, tail, tmp_path):
    with pytest.raises(UnsupportedModel) as caught:
        layout_of(of_shape(*shape, decoded="Mul" in tail), tmp_path)
    output = f"[{','.join(map(str, shape))}]"
    message = str(caught.value)
    for word in (output, tail, f"{CELLS} cells", "64x64", "Nearest: [1,", "yolo export model="):
        assert word in message
    assert message.count(" (YOLO") == 3
    assert ("--head yolo" in message) is (len(shape) == 3 and shape[0] == 1)


@pytest.mark.parametrize(
    ("head", "shape"),
    [
        ("yolov5", (1, 1000)),
        ("yolov8", (1, 3, 8, 8, 8)),
        ("yolov5", (1, 252, 5)),
        ("yolov8", (1, 4, 84)),
        ("end2end", (1, 10, 7)),
    ],
)
def test_a_head_that_contradicts_the_output_is_refused(head, shape, tmp_path):
    with pytest.raises(BadOption, match=f"head {head}"):
        layout_of(of_shape(*shape), tmp_path, head=head)


@pytest.mark.parametrize("task", ["segment", "pose", "classify", "obb"])
def test_other_tasks_are_refused_by_their_name(task, tmp_path):
    with pytest.raises(UnsupportedModel, match=task):
        layout_of(named(yolov8(), task=task), tmp_path)


# ------------------------------------------------------------------------------ class names


def test_names_come_from_the_file_first(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("Katze\n\n  Hund \nVögel\n", encoding="utf-8")
    assert layout_of(yolov5(), tmp_path, classes=file).class_names == ("Katze", "Hund", "Vögel")


@pytest.mark.parametrize(
    "text",
    [
        "['a', 'b', 'c']",
        "{0: 'a', 1: 'b', 2: 'c'}",
        "{2: 'c', 0: 'a', 1: 'b'}",
        '["a", "b", "c"]',
        '{"2": "c", "10": "d", "0": "a", "1": "b"}',
    ],
)
def test_names_come_from_the_metadata_next(text, tmp_path):
    names = ("a", "b", "c", "d") if "d" in text else ("a", "b", "c")
    model = named(of_shape(1, 252, 5 + len(names)), names=text)
    assert layout_of(model, tmp_path).class_names == names


@pytest.mark.parametrize("shape", [(1, 252, 85), (1, 10, 6)], ids=["80 classes", "end-to-end"])
def test_names_without_a_file_or_metadata_are_those_of_coco(shape, tmp_path):
    names = layout_of(named(of_shape(*shape)), tmp_path).class_names
    assert names == COCO_NAMES
    assert len(names) == len(set(names)) == 80
    assert (names[0], names[79]) == ("person", "toothbrush")


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_names_is_refused(count, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("a\n" * count)
    with pytest.raises(BadOption, match=f"^classes .*{C} classes, .*names.txt names {count}"):
        layout_of(yolov5(), tmp_path, classes=file)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_classes_that_nothing_names_are_numbered_with_a_warning(count, tmp_path):
    onnx.save(named(of_shape(1, 252, 5 + count)), tmp_path / "model.onnx")
    found = read_detector(tmp_path / "model.onnx", INPUT)
    assert found.layout.class_names == tuple(f"class_{index}" for index in range(count))
    assert any("--classes FILE" in each for each in found.assumptions)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00", None])
def test_a_missing_file_and_one_without_names_are_refused(content, tmp_path):
    file = tmp_path / "names.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadOption, match=r"^classes .*names\.txt"):
        layout_of(yolov5(), tmp_path, classes=file)


@pytest.mark.parametrize("text", ["__import__('os')", "{0: ", "7", "None"])
def test_metadata_that_is_no_list_of_names_is_refused(text, tmp_path):
    with pytest.raises(UnsupportedModel, match=r"class names .*--classes FILE"):
        layout_of(named(yolov5(), names=text), tmp_path)


def test_an_end_to_end_head_may_have_more_classes_than_names(tmp_path):
    assert layout_of(named(end2end(), names="['a']"), tmp_path).class_names == ("a",)


def test_a_model_of_masks_is_refused_without_its_metadata(tmp_path):
    """Ultralytics' segmentation: the coefficients of masks follow the scores."""
    s = Sketch()
    x = s.conv("raw", s.conv_silu("stem", "images", (3, 8), 3, 8), (8, 4 + 2 + 32))
    boxes, scores, masks = s.split("parts", s.reshape("flat", x, [1, 38, 64]), [4, 2, 32], 1)
    boxes = s.times("pixels", boxes, np.arange(1, 65))
    scores = s.node("Sigmoid", "scores", scores)
    model = s.model(s.concat("output", boxes, scores, s.times("masks", masks, 9)))
    with pytest.raises(UnsupportedModel, match=r"columns 6 to 37 .*masks"):
        layout_of(named(model), tmp_path)


@pytest.mark.parametrize(("stem", "preprocess"), [((3, 2), "yolo"), ((6, 2), "yolox")])
def test_yolov6_and_yolox_that_decode_alike_differ_in_their_stem(stem, preprocess, tmp_path):
    s = Sketch()
    x = s.conv_silu("stem", "images", (3, 8), *stem)
    x = s.conv_silu("down", x, (8, 8), 4, 4)
    x = s.reshape("rows", s.conv("raw", x, (8, 8 + 3)), [1, 88, 8])
    model = s.model(s.times("decode", s.node("Exp", "exp", x), 8))
    assert layout_of(model, tmp_path).preprocess == preprocess


# ---------------------------------------------------------------- outputs of several readings


def scaled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with another decode than any that the server knows: nothing proves its form."""
    (output,) = model.graph.output
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "factor"))
    model.graph.node.append(helper.make_node("Mul", [output.name, "factor"], ["scaled"]))
    output.name = "scaled"
    return model


@pytest.mark.parametrize(("name", "head"), [("yolov6", "yolov5"), ("transposed", "yolov8")])
def test_the_number_of_names_tells_the_form_where_nothing_proves_it(name, head, tmp_path):
    assert layout_of(scaled(OWN[name]()), tmp_path).head == head


def test_a_form_that_is_a_guess_is_a_warning_with_the_option_that_decides(tmp_path):
    onnx.save(named(scaled(OWN["yolov6"]())), tmp_path / "model.onnx")
    guess, unnamed = read_detector(tmp_path / "model.onnx", INPUT).assumptions
    assert "[1,N,5+C]" in guess
    assert "--head yolov8" in guess
    assert "--classes" in unnamed
    sure = read_detector(tmp_path / "model.onnx", INPUT, head="yolov5").assumptions
    assert sure == (unnamed,)


def test_the_message_about_undecoded_maps_lists_every_output(tmp_path):
    model = yolov5()
    del model.graph.output[:]
    for stride in (8, 16, 32):
        shape = [1, 3 * (5 + C), SIZE // stride, SIZE // stride]
        value = helper.make_tensor_value_info(f"detect{stride}.y", onnx.TensorProto.FLOAT, shape)
        model.graph.output.append(value)
    with pytest.raises(UnsupportedModel) as caught:
        layout_of(model, tmp_path)
    for words in ("detect8.y [1,24,8,8]", "detect32.y [1,24,2,2]", "decoded boxes", "export"):
        assert words in str(caught.value)


def test_a_small_input_may_have_fewer_cells_than_the_head_has_columns(tmp_path):
    """A YOLOX for 91 classes at 64x64: 84 cells of 96 numbers."""
    model = named(of_shape(1, 84, 96, decoded=False))
    assert layout_of(model, tmp_path).head == "yolox"
