from functools import partial

import pytest
from rich.console import Console

from quantizer import job
from quantizer.config import BuildConfig
from quantizer.study.networks import ARCHITECTURES, SIZE
from qyolo.cli.tables import paper_table
from qyolo.paper import MODELS, PUBLISHED, measure
from tests.quantizer.machines import RTX_4090, machine
from tests.tiny_models import save_tiny, yolox

TINY = {"yolov5s": partial(yolox, image=(1, 3, SIZE, SIZE))}


def test_the_models_are_those_of_the_paper_and_have_an_architecture():
    assert PUBLISHED.keys() <= set(MODELS) <= ARCHITECTURES.keys()


@pytest.mark.usefixtures("rtx")
def test_a_model_is_timed_in_every_type_and_its_kernels_are_counted(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "detect", lambda: machine(RTX_4090, tensorrt_rtx="a version"))
    few = tmp_path / "few"
    few.mkdir()
    for photo in sorted(photos.iterdir())[:3]:
        (few / photo.name).symlink_to(photo)
    config = BuildConfig(save_tiny(tmp_path, "yolov5"), few, device="gpu", threads=1)
    (row,) = measure(config, lambda progress: None, TINY)
    assert row.ms.keys() == row.moved_mb.keys() == {"fp32", "fp16", "fp8", "int8"}
    assert row.int8_share == 1.0
    assert row.moved_mb["fp32"] > row.moved_mb["fp16"] > 0
    console = Console(width=200, record=True)
    console.print(paper_table([row]))
    shown = console.export_text()
    assert "4.9 / 3.0" in shown
    assert "100%" in shown
