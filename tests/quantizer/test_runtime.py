import pytest

from quantizer.errors import BadOption
from quantizer.runtime import choose_runtime


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_openvino_is_chosen_where_it_is_installed(device):
    assert choose_runtime(device, None) == "openvino"


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_installed_runtime_can_be_asked_for(runtime):
    assert choose_runtime("cpu", runtime) == runtime


@pytest.mark.parametrize("runtime", [None, "openvino", "onnxruntime"])
def test_a_gpu_is_refused_not_silently_replaced(runtime):
    with pytest.raises(BadOption, match="--device gpu"):
        choose_runtime("gpu", runtime)
