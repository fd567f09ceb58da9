"""The emulation of float16; tests/test_end_to_end.py has the accuracy of the graph with it."""

import numpy as np
import onnx
from onnx import TensorProto

from quantizer.model.execution import open_session
from quantizer.qdq.emulation import in_float16
from tests.tiny_models import Sketch


def test_the_emulation_rounds_to_float16_after_each_operator():
    s = Sketch((1, 3, 8, 8), opset=19)
    x = s.silu("x", s.node("Cast", "half", "images", to=TensorProto.FLOAT16))
    model = s.model(s.node("Cast", "float", x, to=TensorProto.FLOAT), rank=4)
    typed = onnx.shape_inference.infer_shapes(model)
    values = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (found,) = open_session(in_float16(typed), 1).run(None, {"images": values})
    half = values.astype(np.float16)
    gate = (1 / (1 + np.exp(-half.astype(np.float32)))).astype(np.float16)
    np.testing.assert_allclose(found, half * gate, rtol=2**-10, atol=1e-7)
    assert (found == found.astype(np.float16)).all()
