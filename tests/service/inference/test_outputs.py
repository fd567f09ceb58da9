import numpy as np
import pytest

from service.inference.outputs import is_finite
from tests.service.live import FP32_RAW

NAN_RAW = np.where(FP32_RAW == 0, np.float32(np.nan), FP32_RAW)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (FP32_RAW, True),
        ((FP32_RAW, NAN_RAW), False),
        (np.array([np.inf, 1], np.float32), False),
        (np.array([np.inf, -np.inf], np.float32), False),
        (np.full(4, 3e38, np.float32), True),
        (np.array([1, 2]), True),
    ],
)
def test_outputs_are_finite_if_each_number_is(outputs, expected):
    assert is_finite(outputs) is expected
