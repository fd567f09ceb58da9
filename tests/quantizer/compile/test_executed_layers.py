import json

import pytest

from quantizer.compile.executed_layers import ExecutedLayer, kernels, read_layers


def layer(kind: str, read: str, *covers: str, name: str = "a layer") -> dict[str, object]:
    """A layer as the engine inspector describes it."""
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "x", "Dimensions": [1, 16, 8, 8], "Format/Datatype": read}],
        "Outputs": [],
        "Metadata": "\x1e".join(f"[ONNX Layer: {each}]" for each in covers),
    }


def read(*layers: object) -> tuple[ExecutedLayer, ...]:
    return read_layers(json.dumps({"Layers": list(layers), "Bindings": ["images", "output"]}))


@pytest.mark.parametrize(
    ("written", "precision"),
    [
        ("Int8 NC/32HW32", "i8"),
        ("Thirty-two wide channel vectorized row major Int8 format", "i8"),
        ("Channel major FP16 format where channel % 8 == 0", "f16"),
        ("Half", "f16"),
        ("BFloat16", "bf16"),
        ("Row major linear FP32", "f32"),
        ("Float", "f32"),
        ("something of the future", "unknown"),
    ],
)
def test_the_precision_of_a_layer_is_that_of_its_first_input(written, precision):
    (found,) = read(layer("CaskConvolution", written, "/model.0/conv/Conv"))
    assert found.precision == precision
    assert found.covers == ("/model.0/conv/Conv",)


def test_every_fused_node_is_named():
    (found,) = read(layer("CaskConvolution", "Int8", "/0/Conv", "/0/act/Sigmoid", "/0/act/Mul"))
    assert found.covers == ("/0/Conv", "/0/act/Sigmoid", "/0/act/Mul")


def test_without_metadata_the_name_lists_the_fused_nodes():
    (found,) = read(layer("CaskConvolution", "Int8", name="/0/Conv + PWN(/0/act/Sigmoid)"))
    assert found.covers == ("/0/Conv", "PWN(/0/act/Sigmoid)")


def test_of_the_layers_that_name_a_convolution_the_one_that_computes_it_counts():
    layers = read(
        layer("Reformat", "Half", "/0/Conv"),
        layer("CaskConvolution", "Int8", "/0/Conv"),
        layer("NoOp", "Float", "/0/Conv"),
    )
    assert kernels(layers, ["/0/Conv", "/1/Conv"]) == {"/0/Conv": layers[1]}
    assert (layers[1].kind, layers[1].precision) == ("CaskConvolution", "i8")


def test_an_engine_built_without_detail_has_no_layers():
    assert read("just a name", "another") == ()
    assert read_layers("{}") == ()
