import pytest

from quantizer.model.graph import Graph, attribute, layer_name
from tests.tiny_models import Sketch, relu


@pytest.fixture(scope="module")
def graph():
    return Graph.of(relu())


def test_the_connections_and_the_static_shapes_are_known(graph):
    assert (graph.input, graph.outputs) == ("images", ("output.y",))
    assert graph.shapes["images"] == (1, 3, 64, 64)
    assert "output.y" not in graph.shapes
    assert graph.producer["stem.y"].name == "stem"
    assert [node.name for node in graph.consumers["stem.act.y"]] == ["res.cv1", "res.add"]
    assert "images" not in graph.producer
    made = {"images"}
    for node in graph.nodes:
        assert set(graph.activations_of(node)) <= made
        made |= set(node.output)


def test_constants_are_no_activations(graph):
    assert graph.is_constant("stem.weight")
    assert not graph.is_constant("stem.y")
    assert graph.constant("stem.weight").shape == (16, 3, 3, 3)
    assert graph.constant("pixels8.factor") == 8
    assert graph.activations_of(graph.producer["stem.y"]) == ("images",)
    with pytest.raises(KeyError):
        graph.constant("stem.y")


def test_omitted_optional_inputs_are_no_activations():
    s = Sketch()
    graph = Graph.of(s.model(s.upsample("up", "images"), rank=4))
    (node,) = graph.nodes
    assert "" in node.input
    assert graph.activations_of(node) == ("images",)


def test_a_constant_that_is_also_listed_as_an_input_is_not_the_image():
    """Old exporters wrote constants this way."""
    model = relu()
    model.graph.input.add().name = "stem.weight"
    model.graph.input.append(model.graph.input.pop(0))
    assert Graph.of(model).input == "images"


def test_nodes_have_default_attributes_and_names():
    stem = Graph.of(relu()).producer["stem.y"]
    assert attribute(stem, "group", 7) == 1
    assert attribute(stem, "absent", 7) == 7
    assert layer_name(stem) == "stem"
    stem.name = ""
    assert layer_name(stem) == "stem.y"
