"""The autoscaler of deploy/kubernetes: what it asks for is there, and means what it should."""

import re
import shutil
import subprocess

import pytest
import yaml

from service.observability.metrics import Metrics
from tests.fakes import manifest_of
from tests.manifests import DEPLOY, render_with_components, the
from tests.service.live import serving, two_variants

KUBERNETES = DEPLOY / "kubernetes"
RULES = KUBERNETES / "components/autoscaling/prometheus-adapter.yaml"
SCENE = DEPLOY.parent / "tests/autoscaling.test.yml"


def test_the_autoscaler_owns_the_replicas_and_asks_for_metrics_that_the_adapter_has(tmp_path):
    objects = render_with_components(KUBERNETES / "overlays/cpu", tmp_path)
    assert "replicas" not in the(objects, "Deployment")["spec"]
    wanted = {
        metric["pods"]["metric"]["name"]
        for metric in the(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]
    }
    assert wanted <= {rule["name"]["as"] for rule in adapter_rules()}


def test_the_adapter_asks_for_metrics_that_the_server_has():
    metrics = Metrics("1")
    metrics.model(manifest_of("fp32"))
    shown = metrics.render("")[0].decode()
    for rule in adapter_rules():
        series, labels = re.fullmatch(r"(\w+)\{(.*)\}", rule["seriesQuery"]).groups()
        family = re.sub(r"_(sum|count|bucket)$", "", series)
        assert f"# TYPE {family} " in shown
        for label in set(re.findall(r"(\w+)[!=]", labels)) - {"namespace", "pod"}:
            assert label in ("variant", "device", "stage")


def test_prometheus_takes_the_adapters_queries_and_answers_what_they_promise(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    rules = [
        {"record": f"{rule['name']['as']}{suffix(rule)}", "expr": query_of(rule)}
        for rule in adapter_rules()
    ]
    groups = {"groups": [{"name": "adapter", "rules": rules}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(groups))
    shutil.copy(SCENE, tmp_path)
    ran = subprocess.run(
        [promtool, "test", "rules", tmp_path / SCENE.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_scrape_finds_itself_in_the_house():
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


def adapter_rules():
    return yaml.safe_load(RULES.read_text("utf-8"))["rules"]["custom"]
