from qyolo.bench import bench, noise
from service.manifest import read_manifest
from service.progress import Progress


def test_every_variant_is_timed_in_every_round(tiny_folder):
    assert (noise() == noise()).all()
    steps: list[Progress] = []
    result = bench(tiny_folder, noise(), 5, 1, steps.append)
    assert (result.model, result.rounds, result.image) == ("yolov5", 5, "640x480")
    assert list(result.variants) == list(read_manifest(tiny_folder).variants)
    assert [step.done for step in steps if step.phase == "bench"] == [1, 2, 3, 4, 5]
    assert {step.phase for step in steps} == {"warm up", "bench"}


def test_the_speedup_is_the_ratio_of_the_medians(tiny_folder):
    result = bench(tiny_folder, noise(), 9, 1, lambda _: None)
    medians = {name: latency.infer_ms["p50"] for name, latency in result.variants.items()}
    assert abs(result.speedup["int8"] - medians["fp32"] / medians["int8"]) < 0.05
