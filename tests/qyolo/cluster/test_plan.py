"""The variants that a plan deploys, and the threads and the capacity of each replica."""

from pathlib import Path

import pytest
import yaml

from quantizer.errors import BadOption
from qyolo.cluster.plan import Plan
from service.experiments.split import BadExperiment
from service.settings import Settings
from tests.fakes import manifest_of

EXAMPLE = Path(__file__).parents[3] / "deploy/ray/serve.yaml"
MODEL = manifest_of("fp32", "bf16", "int8")


def plan(**given: object) -> Plan:
    return Plan.model_validate({"folder": "model"} | given)


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ({}, ("int8",)),
        ({"settings": {"ab": "fp32:1,int8:9"}}, ("fp32", "int8")),
        ({"settings": {"ab": "fp32:1"}}, ("fp32", "int8")),
        ({"variants": ["bf16"]}, ("bf16", "int8")),
    ],
)
def test_the_default_the_variants_of_the_split_and_the_named_ones_are_served(given, served):
    assert plan(**given).served(MODEL) == served


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"variants": ["fp64"]}, BadOption),
        ({"settings": {"ab": "fp64:1"}}, BadExperiment),
        ({"settings": {"shadow": "fp32:1"}}, BadOption),
        ({"settings": {"zmq": "ipc:///tmp/zmq"}}, BadOption),
        ({"settings": {"collect": "here"}}, BadOption),
        ({"settings": {"otel": True}}, BadOption),
    ],
)
def test_a_plan_that_the_model_or_a_cluster_cannot_serve_is_refused(given, refused):
    with pytest.raises(refused):
        plan(**given).served(MODEL)


def test_a_model_for_a_gpu_needs_replicas_with_a_gpu():
    model = manifest_of("int8", device="gpu")
    with pytest.raises(BadOption, match="GPU"):
        plan().served(model)
    assert plan(gpus=0.5).served(model) == ("int8",)


def test_a_limit_below_the_minimum_is_refused():
    with pytest.raises(BadOption, match="max_replicas 1: fewer than min_replicas 2"):
        plan(min_replicas=2, max_replicas=1)


def test_a_misspelt_setting_is_named():
    with pytest.raises(ValueError, match="not a setting: thread"):
        plan(settings={"thread": 1})


@pytest.mark.parametrize(
    ("given", "threads", "capacity"),
    [
        ({}, 1, 3),
        ({"cpus": 0.5}, 1, 3),
        ({"cpus": 5}, 5, 4),
        ({"cpus": 64}, 64, 10),
        ({"cpus": 5, "settings": {"throughput": True}}, 5, 12),
        ({"cpus": 5, "settings": {"threads": 2}}, 2, 3),
        ({"settings": {"capacity": 9}}, 1, 9),
    ],
)
def test_threads_follow_the_cpus_and_capacity_follows_the_threads(given, threads, capacity):
    wanted = plan(**given)
    assert (wanted.threads, wanted.capacity(MODEL)) == (threads, capacity)


def test_the_environment_gives_settings_that_the_plan_leaves_out(monkeypatch):
    monkeypatch.setenv("QYOLO_CONF", "0.7")
    monkeypatch.setenv("QYOLO_IOU", "0.7")
    settings = plan(settings={"iou": 0.5}).settings
    assert isinstance(settings, Settings)
    assert (settings.conf, settings.iou) == (0.7, 0.5)


def test_the_example_is_valid_for_serve_and_holds_a_plan():
    schema = pytest.importorskip("ray.serve.schema", reason="the extra cluster is missing")
    config = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    (application,) = schema.ServeDeploySchema.model_validate(config).applications
    assert application.import_path == "qyolo.cluster.application:build"
    assert Plan.model_validate(application.args).served(MODEL) == ("fp32", "int8")
