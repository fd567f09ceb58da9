"""deploy/kserve: what KServe makes of it is a valid pod that asks what the server answers.

Its custom resources were checked against the schemas of KServe 0.20; those are not kept here.
"""

import pytest
import typer
import yaml

from qyolo.cli.commands import app as command_line
from service.app import METRICS, PUBLIC
from service.settings import Settings
from tests.manifests import (
    DEPLOY,
    NEWEST,
    OLDEST,
    container_of,
    ensure_restricted,
    ensure_valid,
    ensure_whole_cores,
    environment_of,
)

RUNTIME, SERVICE = (
    yaml.safe_load((DEPLOY / "kserve" / name).read_text("utf-8"))
    for name in ("runtime.yaml", "service.yaml")
)
OF_AN_INFERENCE_SERVICE = {"minReplicas", "maxReplicas", "model"}


@pytest.fixture
def pod():
    """As KServe puts it together: the runtime's container and volumes, the predictor's pod."""
    predictor = SERVICE["spec"]["predictor"]
    (container,) = RUNTIME["spec"]["containers"]
    merged = container | {"args": [*container["args"], *predictor["model"]["args"]]}
    rest = {name: value for name, value in predictor.items() if name not in OF_AN_INFERENCE_SERVICE}
    return rest | {"containers": [merged], "volumes": RUNTIME["spec"]["volumes"]}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_pod_is_valid(pod, version):
    metadata = {"name": "street"}
    ensure_valid({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}, version)


def test_the_pod_passes_the_restricted_standard_and_has_whole_cores(pod):
    ensure_restricted(pod)
    ensure_whole_cores(container_of(pod))


def test_the_service_names_the_runtime_and_what_it_speaks():
    model = SERVICE["spec"]["predictor"]["model"]
    assert model["runtime"] == RUNTIME["metadata"]["name"]
    assert model["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]
    formats = [each["name"] for each in RUNTIME["spec"]["supportedModelFormats"]]
    assert model["modelFormat"]["name"] in formats


def test_the_command_line_takes_the_arguments(pod):
    name, *arguments = container_of(pod)["args"]
    context = typer.main.get_command(command_line).commands[name].make_context(name, arguments)
    assert context.params["model"] == "/mnt/models/yolo.onnx"


def test_probes_need_no_key_and_ask_the_port_of_the_settings(pod, monkeypatch):
    container = container_of(pod)
    for name, value in environment_of(container).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert [port["containerPort"] for port in container["ports"]] == [settings.port]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in PUBLIC
        assert container[probe]["httpGet"]["port"] == settings.port
    annotations = RUNTIME["spec"]["annotations"]
    assert annotations["prometheus.kserve.io/port"] == str(settings.port)
    assert annotations["prometheus.kserve.io/path"] == METRICS
    assert settings.open_metrics


def test_mounts_and_volumes_agree(pod):
    mounted = {mount["name"] for mount in container_of(pod)["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
