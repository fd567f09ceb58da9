import json
import xml.etree.ElementTree as ET

import pytest

from tests.qyolo.commands import inline
from tests.tiny_models import SIZE, save_tiny


@pytest.fixture(scope="module")
def studied(photos, annotations, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    arguments = ("--calibration", photos, "--images", photos)
    ran = inline(
        *("study", save_tiny(folder, "yolov5"), "--size", SIZE, *arguments, "--bits", 4),
        *("--annotations", annotations, "--out", folder / "out", "--threads", 1),
    )
    return ran, folder / "out"


def test_the_tables_are_printed_and_written_without_an_empty_cell(studied):
    ran, folder = studied
    assert ran.code == 0, ran.err
    written = (folder / "study.md").read_text()
    assert ran.out.strip() == written.strip()
    assert "study.svg" in ran.err
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert len(rows) > 20
    for row in rows:
        assert all(cell.strip() for cell in row.strip("|").split("|")), row
    for words in ("MinMax | 4-4", "UH (Q-YOLO) | 4-4", "weights only", "symmetric AP", "32-4"):
        assert words in written
    assert "rounded adaptively" in written


def test_the_json_holds_every_setting(studied):
    _, folder = studied
    document = json.loads((folder / "study.json").read_text())
    assert len(document["results"]) == 29
    rules = {result["setting"]["ranges"] for result in document["results"]}
    assert rules == {"uh", "minmax", "percentile", "mse", "entropy"}
    assert {result["setting"]["activations"] for result in document["results"]} == {None, 4}


def test_the_chart_is_a_picture_with_every_rule_in_its_legend(studied):
    _, folder = studied
    root = ET.parse(folder / "study.svg").getroot()
    assert root.tag.endswith("svg")
    comments = (folder / "study.svg").read_text()
    for name in ("MinMax", "Percentile", "MSE", "Entropy", "UH (Q-YOLO)", "float"):
        assert f"<!-- {name} -->" in comments
