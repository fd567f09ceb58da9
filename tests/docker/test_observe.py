"""Prometheus and Grafana as provisioned: their files are valid, and every query has its metric."""

import json
import re
import runpy
import shutil
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
from tests.processes import run

OBSERVE = ROOT / "docker/observe"
DASHBOARD = json.loads((OBSERVE / "grafana/dashboards/qyolo.json").read_text(encoding="utf-8"))
FILES = [OBSERVE / "rules.yml", ROOT / "docs/alerts.yml"]
RULES = [
    rule
    for path in FILES
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
SERIES = re.compile(r"(?<![\w:])((?:qyolo|process)[_:][\w:]*)(?:\{([^}]*)\})?")
PROMTOOL = shutil.which("promtool")
expressions = runpy.run_path(str(ROOT / "docker/queries.py"))["expressions"]


@pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus"
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "--syntax-only", OBSERVE / "prometheus.yml"),
        ("check", "rules", *FILES),
        ("test", "rules", *sorted(Path(__file__).parent.glob("*.test.yml"))),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_accepts(arguments):
    run(PROMTOOL, *arguments)


def exposed() -> dict[str, set[str]]:
    """The metrics of a server that has counted one event of each kind, with their labels."""
    metrics = Metrics("1")
    metrics.describe(manifest_of("fp32", "int8"), 1)
    observe = metrics.observer(manifest_of("fp32", "int8"))
    boxes = Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    observe(Answer("int8", 64, 64, boxes, {"total": 0.01}))
    observe(Compared("shadow", "fp32", "int8", boxes, boxes))
    observe(Shadowed("fp32", "done"))
    observe(Assigned("int8"))
    metrics.count_request("/v1/detect", "POST", 200)
    return {
        sample.name: set(sample.labels) | {"job", "instance"}
        for family in text_string_to_metric_families(metrics.render("")[0].decode())
        for sample in family.samples
    }


def test_the_queries_of_dashboard_and_rules_name_metrics_and_labels_that_exist():
    metrics = exposed()
    queries = [query for _, query in expressions()] + [rule["expr"] for rule in RULES]
    queries += [text for rule in RULES for text in rule.get("annotations", {}).values()]
    for query in queries:
        for name, matchers in SERIES.findall(query):
            assert name in metrics or name in RECORDED, f"{name} in {query}"
            labels = set(re.findall(r"(\w+)\s*[!=]~?", matchers))
            assert labels <= metrics.get(name, labels) | {"le"}, query


def test_every_query_of_a_model_is_filtered_by_the_selected_ones():
    metrics = exposed()
    of_models = {name for name, labels in metrics.items() if "model" in labels}
    of_models |= {name for name in RECORDED if not name.startswith(("qyolo:ready", "qyolo:http"))}
    (model,) = (each for each in DASHBOARD["templating"]["list"] if each["name"] == "model")
    assert model["current"]["value"] == ["$__all"]
    assert model["query"]["query"].startswith("label_values(qyolo_model_info{")
    filtered = set()
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            for name, matchers in SERIES.findall(target["expr"]):
                assert ('model=~"$model"' in matchers) == (name in of_models), target["expr"]
                filtered |= {name} & of_models
    assert len(filtered) > 10


def test_each_recorded_series_is_used():
    queries = " ".join([*(query for _, query in expressions()), *(rule["expr"] for rule in RULES)])
    for name in RECORDED:
        assert name in queries, name


def test_every_server_is_scraped_by_its_name():
    (job,) = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    services = read("docker-compose.yml")["services"]
    servers = {name for name, each in services.items() if "QYOLO_PUBLISHED" in str(each)}
    assert set(found["names"]) == servers
    assert job["job_name"] == "qyolo"


def test_grafana_finds_the_dashboard_and_its_source():
    provisioning = OBSERVE / "grafana/provisioning"
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())
    (source,) = sources["datasources"]
    services = read("docker-compose.yml")["services"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    (provider,) = yaml.safe_load((provisioning / "dashboards/qyolo.yml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
    used = re.findall(r'"datasource": (\{[^}]*\})', json.dumps(DASHBOARD))
    assert {json.loads(each)["uid"] for each in used} == {source["uid"]}


def test_the_panels_do_not_overlap():
    seen, ids = set(), [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & seen, panel["title"]
        assert at["x"] + at["w"] <= 24
        seen |= cells
