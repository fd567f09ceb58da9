import numpy as np
import pytest

from quantizer.model.graph import Graph, attribute, layer_name
from tests.tiny_models import Sketch, relu


@pytest.fixture(scope="module")
def graph():
    return Graph.of(relu())


def test_the_image_and_the_outputs_are_known(graph):
    assert (graph.input, graph.outputs) == ("images", ("output.y",))
    assert graph.shapes["images"] == (1, 3, 64, 64)


def test_a_tensor_of_dynamic_size_has_no_shape(graph):
    assert "output.y" not in graph.shapes


def test_producers_and_consumers(graph):
    assert graph.producer["stem.y"].name == "stem"
    assert [node.name for node in graph.consumers["stem.act.y"]] == ["res.cv1", "res.add"]
    assert "images" not in graph.producer


def test_constants_are_told_from_activations(graph):
    assert graph.is_constant("stem.weight")
    assert not graph.is_constant("stem.y")
    assert graph.constant("stem.weight").shape == (16, 3, 3, 3)
    assert graph.activations_of(graph.producer["stem.y"]) == ("images",)
    with pytest.raises(KeyError):
        graph.constant("stem.y")


def test_omitted_optional_inputs_are_no_activations():
    s = Sketch()
    made = s.upsample("up", "images")
    (node,) = Graph.of(s.model(made, rank=4)).nodes
    assert "" in node.input
    assert Graph.of(s.model(made, rank=4)).activations_of(node) == ("images",)


def test_a_constant_that_is_also_listed_as_an_input_is_not_the_image():
    """Old exporters wrote constants so."""
    model = relu()
    listed = model.graph.input.add()
    listed.name = "stem.weight"
    first = model.graph.input.pop(0)
    model.graph.input.append(first)
    assert Graph.of(model).input == "images"


def test_attributes_have_defaults(graph):
    stem = graph.producer["stem.y"]
    assert attribute(stem, "group", 7) == 1
    assert attribute(stem, "absent", 7) == 7


def test_a_node_without_a_name_is_named_after_its_output(graph):
    stem = type(graph.nodes[0])()
    stem.CopyFrom(graph.producer["stem.y"])
    assert layer_name(stem) == "stem"
    stem.name = ""
    assert layer_name(stem) == "stem.y"


def test_nodes_keep_their_order(graph):
    made: set[str] = {"images"}
    for node in graph.nodes:
        assert set(graph.activations_of(node)) <= made
        made |= set(node.output)


def test_constants_keep_their_values():
    s = Sketch()
    made = s.plus("add", "images", np.full((1, 1, 1, 1), 2.5))
    graph = Graph.of(s.model(made, rank=4))
    assert graph.constant("add.term").ravel().tolist() == [2.5]
