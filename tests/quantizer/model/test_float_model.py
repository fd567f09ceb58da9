from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from quantizer.errors import BadOption, UnsupportedModel
from quantizer.model.execution import open_session
from quantizer.model.float_model import FloatModel, read_float_model
from service.vision.heads import cells_of
from service.vision.input_size import InputSize
from tests.tiny_models import CELLS, INPUT, SIZE, TINY, C, Sketch, save_tiny, yolov5, yolox

SHAPES = {
    "yolov5": (1, 3 * CELLS, 5 + C),
    "yolox": (1, CELLS, 5 + C),
    "yolov8": (1, 4 + C, CELLS),
    "end2end": (1, 10, 6),
    "relu": (1, 4 + C, CELLS),
}


def read(model: onnx.ModelProto, folder: Path, size: int | str | None = SIZE) -> FloatModel:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return read_float_model(path, None if size is None else InputSize.of(size))


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    return open_session(model, 1).run(None, {"images": image})[0]


@pytest.mark.parametrize("name", TINY)
def test_the_output_has_a_static_shape_and_the_same_values(name, tmp_path):
    path = save_tiny(tmp_path, name)
    image = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)
    before, after = onnx.load(path), read_float_model(path, INPUT)
    assert after.output_shape == SHAPES[name]
    assert after.graph.shapes["images"] == (1, 3, SIZE, SIZE)
    np.testing.assert_allclose(run(after.model, image), run(before, image), rtol=1e-4, atol=1e-4)


def test_an_old_opset_is_converted_and_a_newer_one_kept(tmp_path):
    for model, version in ((yolox(opset=11), 13), (yolov5(opset=17), 17)):
        (opset,) = read(model, tmp_path).model.opset_import
        assert opset.version == version


@pytest.mark.parametrize("image", [(1, 3, SIZE, SIZE), ("batch", 3, "height", "width")])
def test_static_and_dynamic_sizes_are_replaced(image, tmp_path):
    model = read(yolox(image=image), tmp_path, size=96)
    assert model.graph.shapes["images"] == (1, 3, 96, 96)
    made = run(model.model, np.zeros((1, 3, 96, 96), np.float32))
    assert made.shape == model.output_shape == (1, cells_of(InputSize.of(96)), 5 + C)


def test_every_tensor_has_a_shape_and_only_the_first_output_and_the_metadata_are_kept(tmp_path):
    model = yolov5()
    raw = helper.make_tensor_value_info("detect8.y", TensorProto.FLOAT, ["a", "b", "c", "d"])
    model.graph.output.append(raw)
    found = read(model, tmp_path)
    assert {name for node in found.graph.nodes for name in node.output} <= set(found.graph.shapes)
    assert found.graph.outputs == ("output.y",)
    assert found.metadata["names"] == "{0: 'cat', 1: 'dog', 2: 'bird'}"


def test_constants_are_folded_and_batch_norms_fused(tmp_path):
    s = Sketch()
    x = s.conv("conv", "images", (3, 4))
    ones = [s.constant(f"norm.{name}", np.ones(4), np.float32) for name in "abcd"]
    x = s.node("BatchNormalization", "norm", x, *ones)
    x = s.reshape("rows", s.conv("last", x, (4, 8)), [1, 8, -1])
    kinds = [node.op_type for node in read(s.model(x), tmp_path).graph.nodes]
    assert kinds == ["Conv", "Conv", "Reshape"]


def test_external_data_is_read_and_refused_where_it_is_missing(tmp_path):
    path, data = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    onnx.save(yolov5(), path, save_as_external_data=True, location=data.name)
    assert data.stat().st_size > 1000
    assert read_float_model(path, INPUT).output_shape == SHAPES["yolov5"]
    data.unlink()
    with pytest.raises(UnsupportedModel, match="not a readable ONNX"):
        read_float_model(path, INPUT)


# -------------------------------------------------------------------------------- refusals


FLOAT = TensorProto.FLOAT
IMAGE = ("images", FLOAT, [1, 3, SIZE, SIZE])
OUTPUT = ("output.y", FLOAT, ["a", "b", "c"])
REFUSED = {
    "two inputs": (
        [IMAGE, ("scale", FLOAT, [1, 2])],
        OUTPUT,
        ("images [1,3,64,64]", "scale [1,2]"),
    ),
    "a grey image": ([("images", FLOAT, [1, 1, 64, 64])], OUTPUT, ("3-channel", "[1,1,64,64]")),
    "a flat input": ([("images", FLOAT, [1, 12288])], OUTPUT, ("[1,3,H,W]", "[1,12288]")),
    "bytes": (
        [("images", TensorProto.UINT8, [1, 3, 64, 64])],
        OUTPUT,
        ("float32", "images [1,3,64,64]", "preprocessing=False"),
    ),
    # Exporters that put the NMS into the graph make the number of boxes the first output.
    "an NMS in the graph": ([IMAGE], ("output.y", TensorProto.INT64, [1]), ("output.y", "NMS")),
}


@pytest.mark.parametrize(("inputs", "output", "words"), REFUSED.values(), ids=REFUSED)
def test_an_unsupported_input_or_output_is_named(inputs, output, words, tmp_path):
    model = yolox()
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(helper.make_tensor_value_info(*each) for each in inputs)
    model.graph.output.append(helper.make_tensor_value_info(*output))
    with pytest.raises(UnsupportedModel) as caught:
        read(model, tmp_path)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("model.onnx", b"not a protobuf at all, only text", "not a readable ONNX"),
        ("model.onnx", b"", "no nodes"),
        ("model.onnx", b"\x89PNG\r\n\x1a\n" + bytes(100), "model.onnx"),
        ("yolo.pt", b"PK\x03\x04", "export"),
        ("yolo.pth", b"PK\x03\x04", "export"),
        ("absent.onnx", None, r"no such file: .*absent\.onnx"),
        (".", None, "no such file"),
    ],
)
def test_a_file_of_another_kind_and_a_missing_one_are_refused(name, content, word, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnsupportedModel, match=word) as caught:
        read_float_model(path, INPUT)
    assert "\n" not in str(caught.value)


def test_a_decode_of_a_fixed_size_is_refused_at_another_size_that_was_asked_for(tmp_path):
    with pytest.raises(BadOption, match=r"^size 96: .* does not work at 96x96.* use --size 64$"):
        read(yolov5(), tmp_path, size=96)


def test_a_decode_of_a_fixed_size_is_read_at_that_size_where_none_is_asked_for(tmp_path):
    found = read(yolov5(), tmp_path, size=None)
    assert found.size == INPUT
    assert found.graph.shapes["images"] == (1, 3, SIZE, SIZE)
    assert "640x640" in found.assumptions[0]
    assert "64x64" in found.assumptions[0]
    free = read(yolox(), tmp_path, size=None)
    assert (free.size, free.assumptions) == (InputSize(640, 640), ())


def test_a_decode_of_a_fixed_size_that_is_no_square_says_how_to_export_it(tmp_path):
    model = yolov5()
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 96
    with pytest.raises(UnsupportedModel, match=r"640x640.* input \[1,3,64,96\]: export it"):
        read(model, tmp_path, size=None)


def test_an_unknown_operator_is_refused(tmp_path):
    model = yolov5()
    model.graph.node[1].op_type = "Frobnicate"
    with pytest.raises(UnsupportedModel, match="Frobnicate"):
        read(model, tmp_path)


@pytest.mark.parametrize(
    ("size", "nearest"), [("640x360", "640x352"), ("100x64", "96x64"), ("64x10", "64x32")]
)
def test_both_sides_must_be_multiples_of_the_stride(size, nearest, tmp_path):
    with pytest.raises(BadOption, match=f"^size {size}: .*use --size {nearest}$"):
        read(yolox(), tmp_path, size)


def test_a_free_model_is_read_at_a_rectangular_size(tmp_path):
    model = read(yolox(), tmp_path, size="96x32")
    assert model.graph.shapes["images"] == (1, 3, 32, 96)
    assert model.output_shape == (1, cells_of(InputSize(96, 32)), 5 + C)


def test_a_decode_of_a_fixed_rectangle_is_read_at_that_size_only(tmp_path):
    model = yolov5(image=(1, 3, 64, 96))
    assert read(model, tmp_path, size=None).size == InputSize(96, 64)
    assert read(model, tmp_path, size="96x64").assumptions == ()
    with pytest.raises(BadOption, match=r"size 64: .* does not work at 64x64.* use --size 96x64$"):
        read(model, tmp_path, size=64)


@pytest.mark.parametrize("size", [65, 100, 48])
def test_a_size_that_is_no_multiple_of_the_stride_is_refused(size, tmp_path):
    with pytest.raises(BadOption, match=f"size {size}"):
        read(yolox(), tmp_path, size)
