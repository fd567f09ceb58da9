import pytest

from qyolo.bench import bench, noise
from service.manifest import read_manifest
from service.progress import Progress


def test_every_variant_is_timed_in_every_round(tiny_folder):
    assert (noise() == noise()).all()
    steps: list[Progress] = []
    result = bench(tiny_folder, noise(), 9, 1, steps.append)
    assert (result.model, result.rounds, result.image) == ("yolov5", 9, "640x480")
    assert list(result.variants) == list(read_manifest(tiny_folder).variants)
    assert [step.done for step in steps if step.phase == "bench"] == list(range(1, 10))
    assert {step.phase for step in steps} == {"warm up", "bench"}
    medians = {name: latency.infer_ms["p50"] for name, latency in result.variants.items()}
    assert result.speedup["int8"] == pytest.approx(medians["fp32"] / medians["int8"], abs=0.05)
