"""Which engines are compiled and which are kept, on real engines of a tiny model."""

import numpy as np
import onnx
import pytest

from quantizer.compile.builder import Built, Candidate
from quantizer.compile.candidates import candidates_for, keep_fastest, time_interleaved
from quantizer.compile.load import load_builder
from service.manifest import Variant
from tests.quantizer.graphs import graph_of, served
from tests.tiny_models import SIZE

FLOAT, INT8 = onnx.ModelProto(producer_name="float"), onnx.ModelProto(producer_name="int8")
IMAGE = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)


def of(low: str | None) -> list[tuple[str, str, str, str]]:
    return [
        (candidate.name, candidate.variant, candidate.float_type, candidate.graph.producer_name)
        for candidate in candidates_for(FLOAT, INT8, low)
    ]


def test_a_processor_with_float32_alone_has_two_candidates():
    assert of(None) == [("fp32", "fp32", "f32", "float"), ("int8", "int8", "f32", "int8")]


@pytest.mark.parametrize(("low", "name"), [("bf16", "bf16"), ("f16", "fp16")])
def test_a_lower_float_type_adds_a_variant_and_float_regions_in_int8(low, name):
    assert of(low) == [
        ("fp32", "fp32", "f32", "float"),
        (name, name, low, "float"),
        ("int8", "int8", "f32", "int8"),
        (f"int8-{low}", "int8", low, "int8"),
    ]


def built(folder, *names: str) -> dict[str, Built]:
    made = {}
    for name in names:
        (folder / name).mkdir()
        (folder / name / "model.xml").write_text("")
        variant = Variant(runtime="openvino", precision="int8", model=f"{name}/model.xml")
        made[name] = Built(variant, {}, 1)
    return made


@pytest.mark.parametrize(("mixed_ms", "kept"), [(2.0, "int8-bf16"), (4.0, "int8")])
def test_of_two_int8_engines_the_faster_is_kept(mixed_ms, kept, tmp_path):
    candidates = candidates_for(FLOAT, INT8, "bf16")
    made = built(tmp_path, "fp32", "bf16", "int8", "int8-bf16")
    timed = {"fp32": 9.0, "bf16": 5.0, "int8": 3.0, "int8-bf16": mixed_ms}
    chosen, ms = keep_fastest(candidates, made, timed, tmp_path)
    assert list(chosen) == ["fp32", "bf16", "int8"]
    assert chosen["int8"].variant.model == f"{kept}/model.xml"
    assert ms == {"fp32": 9.0, "bf16": 5.0, "int8": min(3.0, mixed_ms)}
    assert {path.name for path in tmp_path.iterdir()} == {"fp32", "bf16", kept}


def test_engines_are_timed_on_an_image(tmp_path):
    float_graph, builder = graph_of("yolov5").model, load_builder("openvino", 1)
    made = {
        name: builder.build(Candidate(name, float_graph), tmp_path) for name in ("fp32", "int8")
    }
    ms = time_interleaved(made, tmp_path, IMAGE, 1)
    assert list(ms) == ["fp32", "int8"]
    assert all(0 < value < 1000 for value in ms.values())


def test_a_lower_float_type_reaches_the_engine_with_and_without_its_blob(tmp_path):
    float_graph, builder = graph_of("yolov5").model, load_builder("openvino", 1)
    low = builder.low_float
    if low is None:
        pytest.skip("this processor computes in float32 only")
    plain = builder.build(Candidate("fp32", float_graph), tmp_path)
    lower = builder.build(Candidate("bf16", float_graph, low), tmp_path)
    assert lower.variant.float_type == low
    assert set(lower.executed.values()) == {low}
    assert set(plain.executed.values()) == {"f32"}
    in_f32, in_low = (served(each.variant, tmp_path, IMAGE) for each in (plain, lower))
    without_blob = lower.variant.model_copy(update={"blob": None, "blob_key": None})
    np.testing.assert_array_equal(in_low, served(without_blob, tmp_path, IMAGE))
    assert not np.array_equal(in_low, in_f32)
    np.testing.assert_allclose(in_low, in_f32, atol=0.05 * np.abs(in_f32).max())
