"""Prometheus and Grafana as provisioned: their files are read, and they ask for what there is."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.experiments.events import Assigned, Compared, Shadowed
from service.inference.results import Answer
from service.observability.metrics import Metrics
from service.vision.detections import Detections
from tests.docker.compose import ROOT, read
from tests.fakes import manifest_of

OBSERVE = ROOT / "docker/observe"
DASHBOARD = json.loads((OBSERVE / "grafana/dashboards/qyolo.json").read_text(encoding="utf-8"))
RULES = [OBSERVE / "rules.yml", ROOT / "docs/alerts.yml"]
SCENES = Path(__file__).parent / "rules.test.yml"
PROMTOOL = shutil.which("promtool")
expressions = runpy.run_path(str(ROOT / "docker/queries.py"))["expressions"]
NAME = re.compile(r"(?<![\w:])((?:qyolo|process)[_:][\w:]*)(?:\{([^}]*)\})?")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus"
)


def promtool(*arguments: object) -> None:
    command = [PROMTOOL, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def exposed() -> dict[str, set[str]]:
    """The metrics of a server that has done everything once, with their labels."""
    metrics = Metrics("1")
    model = metrics.model(manifest_of("fp32", "int8"))
    boxes = Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    model.observe(Answer("int8", 64, 64, boxes, {"total": 0.01}))
    model.observe(Compared("shadow", "fp32", "int8", boxes, boxes))
    model.observe(Shadowed("fp32", "done"))
    model.observe(Assigned("int8"))
    metrics.count_request("/v1/detect", "POST", 200)
    return {
        sample.name: set(sample.labels) | {"job", "instance"}
        for family in text_string_to_metric_families(metrics.render("")[0].decode())
        for sample in family.samples
    }


def recorded() -> dict[str, str]:
    """What Prometheus computes, with its expression."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    rules = [rule for group in groups for rule in group["rules"]]
    return {rule["record"]: rule["expr"] for rule in rules if "record" in rule}


@needs_promtool
def test_prometheus_takes_its_files():
    promtool("check", "config", "--syntax-only", OBSERVE / "prometheus.yml")
    promtool("check", "rules", *RULES)


@needs_promtool
def test_each_alert_fires_when_it_should_and_only_then():
    promtool("test", "rules", SCENES)


def test_every_server_is_scraped_by_its_name():
    (job,) = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    services = read("docker-compose.yml")["services"]
    servers = {name for name, each in services.items() if "QYOLO_PUBLISHED" in str(each)}
    assert set(found["names"]) == servers
    assert job["job_name"] == "qyolo"


def test_what_is_asked_for_is_what_there_is():
    metrics, records = exposed(), recorded()
    alerts = [rule["expr"] for rule in rules() if "alert" in rule]
    asked = [expression for _, expression in expressions()] + list(records.values()) + alerts
    for expression in asked:
        for name, matchers in NAME.findall(expression):
            assert name in metrics or name in records, f"{name} in {expression}"
            labels = set(re.findall(r"(\w+)\s*[!=]~?", matchers))
            if name in metrics:
                assert labels <= metrics[name] | {"le"}, expression


def test_each_recorded_series_and_metric_is_watched_by_someone():
    asked = " ".join(expression for _, expression in expressions())
    asked += " ".join(rule["expr"] for rule in rules())
    for name in recorded():
        assert name in asked, name


def test_the_dashboard_is_one_that_grafana_finds():
    provisioning = OBSERVE / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    services = read("docker-compose.yml")["services"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    (provider,) = yaml.safe_load((provisioning / "dashboards/qyolo.yml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
    sources = re.findall(r'"datasource": (\{[^}]*\})', json.dumps(DASHBOARD))
    assert {json.loads(each)["uid"] for each in sources} == {source["uid"]}


def test_the_panels_lie_beside_each_other():
    seen, ids = set(), [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & seen, panel["title"]
        assert at["x"] + at["w"] <= 24
        seen |= cells


def rules() -> list[dict]:
    text = (OBSERVE / "rules.yml").read_text(encoding="utf-8")
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
