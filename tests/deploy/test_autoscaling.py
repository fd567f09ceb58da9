"""The autoscaler of deploy/kubernetes: the metrics that it requests exist and measure load."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from service.observability.metrics import Metrics
from tests.deploy.rendering import read, render_with_components, the
from tests.fakes import manifest_of
from tests.processes import run
from tests.service.live import serving, two_variants

ADAPTER = read("kubernetes/components/autoscaling/prometheus-adapter.yaml")["rules"]["custom"]
SCENE = Path(__file__).with_name("autoscaling.test.yml")


def test_the_autoscaler_sets_the_replicas_by_metrics_of_the_adapter(tmp_path):
    objects = render_with_components("cpu", tmp_path)
    assert "replicas" not in the(objects, "Deployment")["spec"]
    wanted = {
        metric["pods"]["metric"]["name"]
        for metric in the(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]
    }
    assert wanted <= {rule["name"]["as"] for rule in ADAPTER}


def test_the_adapter_queries_metrics_of_the_server():
    metrics = Metrics("1")
    metrics.observer(manifest_of("fp32"))
    exposition = metrics.render("")[0].decode()
    for rule in ADAPTER:
        series, labels = re.fullmatch(r"(\w+)\{(.*)\}", rule["seriesQuery"]).groups()
        family = re.sub(r"_(sum|count|bucket)$", "", series)
        assert f"# TYPE {family} " in exposition
        for label in set(re.findall(r"(\w+)[!=]", labels)) - {"namespace", "pod"}:
            assert label in ("variant", "device", "stage")


def test_prometheus_answers_the_adapters_queries(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    rules = [
        {"record": f"{rule['name']['as']}{suffix(rule)}", "expr": query_of(rule)}
        for rule in ADAPTER
    ]
    groups = {"groups": [{"name": "adapter", "rules": rules}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(groups))
    shutil.copy(SCENE, tmp_path)
    run(promtool, "test", "rules", tmp_path / SCENE.name)


def test_a_scrape_is_one_of_the_requests_in_flight():
    """The adapter subtracts it."""
    with serving(two_variants()[0]) as live:
        assert "qyolo_requests_in_flight 1.0" in live.client.get("/metrics").text


def suffix(rule):
    """A recorded series must not feed its own rule."""
    return "_rule" if rule["seriesQuery"].startswith(rule["name"]["as"]) else ""


def query_of(rule):
    """As the adapter fills it in for two pods."""
    filled = {
        "<<.Series>>": rule["seriesQuery"].partition("{")[0],
        "<<.LabelMatchers>>": 'namespace="n",pod=~"a|b"',
        "<<.GroupBy>>": "pod",
    }
    query = rule["metricsQuery"]
    for placeholder, value in filled.items():
        query = query.replace(placeholder, value)
    return query
