"""The convolution of the anchors that can pass."""

import os
import subprocess
import sys

import numpy as np
import pytest

from service.errors import BadModelFolder
from service.vision.projections import Projection, read_projections

# Prints the seconds that the other threads of the process run meanwhile. They run when they start.
MEASURED = """
import threading, time
from pathlib import Path
import numpy as np
from service.vision import projections

def others():
    own = str(threading.get_native_id())
    tasks = [each for each in Path("/proc/self/task").iterdir() if each.name != own]
    return sum(int((each / "schedstat").read_text().split()[0]) for each in tasks) / 1e9

projection = projections.Projection(np.ones((3, 64, 80), np.float32), np.ones((3, 80), np.float32))
features, anchors = np.ones((1, 40, 40, 64), np.uint8), np.arange(4800)
projections.SINGLE_THREADED = {limit}
time.sleep(0.5)
before = others()
for _ in range(40):
    projection.of(features, anchors)
print(others() - before)
"""


def test_each_anchor_of_a_cell_has_its_own_weights():
    random = np.random.default_rng(0)
    weight = random.normal(size=(3, 8, 5)).astype(np.float32)
    bias = random.normal(size=(3, 5)).astype(np.float32)
    features = random.integers(0, 256, (1, 4, 6, 8), np.uint8)
    anchors = np.array([0, 1, 2, 3, 40, 71])
    cells = features.reshape(-1, 8).astype(np.float64)
    expected = [cells[a // 3] @ weight[a % 3] + bias[a % 3] for a in anchors]
    np.testing.assert_allclose(Projection(weight, bias).of(features, anchors), expected, rtol=1e-5)
    assert Projection(weight, bias).of(features, anchors[:0]).shape == (0, 5)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_named(content, tmp_path):
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(BadModelFolder, match=r"damaged\.npz"):
        read_projections(tmp_path / "damaged.npz")


def seconds_of_other_threads(limit: str) -> float:
    two = os.environ | {"OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", MEASURED.format(limit=limit)]
    return float(subprocess.run(command, env=two, check=True, capture_output=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the times of threads are in /proc")
def test_no_thread_of_blas_keeps_a_core_from_the_next_inference():
    assert seconds_of_other_threads("projections.SINGLE_THREADED") < 0.005
    assert seconds_of_other_threads("2**60") > 0.02  # what it would be without the limit
