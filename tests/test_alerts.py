"""docs/alerts.yml: Prometheus takes it, its alerts fire when they should, its metrics are ours."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.experiments.events import Compared, Shadowed
from service.observability.metrics import Metrics
from service.vision.detections import Detections
from tests.fakes import manifest_of

ALERTS = Path(__file__).parent.parent / "docs/alerts.yml"
SCENES = Path(__file__).parent / "alerts.test.yml"
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus"
)


def promtool(*arguments: object) -> None:
    ran = subprocess.run(
        [PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_promtool
def test_prometheus_takes_the_rules():
    promtool("check", "rules", ALERTS)


@needs_promtool
def test_each_alert_fires_when_it_should_and_only_then():
    promtool("test", "rules", SCENES)


def test_every_metric_and_label_of_the_rules_is_one_that_the_server_has():
    metrics = Metrics("1")
    model = metrics.model(manifest_of("fp32", "int8"))
    boxes = Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    model.observe(Compared("shadow", "fp32", "int8", boxes, boxes))
    model.observe(Shadowed("fp32", "done"))
    shown = metrics.render("")[0].decode()
    labels = {
        sample.name: set(sample.labels) | {"job"}
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
    }
    text = ALERTS.read_text(encoding="utf-8")
    selectors = re.findall(r"\b(qyolo_\w+)\{([^}]*)\}", text)
    assert {name for name, _ in selectors} <= set(labels)
    for name, matchers in selectors:
        assert set(re.findall(r"(\w+)!?=", matchers)) <= labels[name]
    for name in set(re.findall(r"\b(qyolo_\w+)", text)):
        assert name in labels, name
