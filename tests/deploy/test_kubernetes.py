"""deploy/kubernetes and deploy/kserve: valid, secure, and in agreement with server and commands.

KServe's custom resources were checked against the schemas of KServe 0.20, which are not kept here.
"""

from functools import cache

import pytest
import typer

from qyolo.cli.commands import app as command_line
from qyolo.user_cache import cache_root
from service.app import METRICS, PUBLIC, create_app
from service.engines.gpu import RTX_TARGETS
from service.lifecycle import FolderSource
from service.settings import Settings
from tests.deploy.memory import mib, needed_mib
from tests.deploy.rendering import (
    DEPLOY,
    container_of,
    environment_of,
    kserve_pod,
    pod_of,
    read,
    render,
    render_with_components,
    the,
)

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate is not installed: make test installs it"
)

OLDEST, NEWEST = "1.30", "1.37"  # the oldest that has all fields used here; the validator's newest
FOREIGN = {"ServiceMonitor"}  # a custom resource: Kubernetes has no schema of it
BY_HAND = {"qyolo-keys", "qyolo-scrape"}  # Secrets that docs/how-to/kubernetes.md creates
OF_THE_COMMAND_LINE = {"cache_dir", "device"}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
STOPPING_S = 5  # to terminate a build and free the engines
OVERLAYS = ("cpu", "gpu")
KUBERNETES = [f"{overlay}{suffix}" for overlay in OVERLAYS for suffix in ("", "+components")]

render_once = cache(render)


def objects_of(name, tmp_path_factory):
    if name == "kserve":
        return [kserve_pod()]
    overlay, _, components = name.partition("+")
    if components:
        return render_with_components(overlay, tmp_path_factory.mktemp("overlay"))
    return render_once(overlay)


@pytest.fixture(scope="module", params=[*KUBERNETES, "kserve"])
def deployed(request, tmp_path_factory):
    """All objects of a deployment; of KServe, the pod that it makes."""
    return objects_of(request.param, tmp_path_factory)


@pytest.fixture(scope="module", params=KUBERNETES)
def objects(request, tmp_path_factory):
    return objects_of(request.param, tmp_path_factory)


def workloads(objects):
    """The servers, and the build if it is a workload of its own."""
    return [each for each in objects if each["kind"] in ("Pod", "Deployment", "Job")]


def server_of(objects):
    return next(each for each in workloads(objects) if each["kind"] != "Job")


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    app = create_app(Settings(), FolderSource(tmp_path_factory.mktemp("model")))
    return {route.path for route in app.routes}


@pytest.fixture
def settings(deployed, monkeypatch):
    """What the server reads in its container."""
    given = environment_of(container_of(server_of(deployed)))
    for each in deployed:
        given |= each["data"] if each["kind"] == "ConfigMap" else {}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    names = {name.removeprefix("QYOLO_").lower() for name in given if name.startswith("QYOLO_")}
    assert names - OF_THE_COMMAND_LINE <= set(Settings.model_fields)
    return Settings()


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid(deployed, version):
    """By the published schemas, in which a misspelt field is an error."""
    for each in deployed:
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, version, strict=True)


def test_pods_pass_the_restricted_standard_with_a_read_only_root(deployed):
    for workload in workloads(deployed):
        pod = pod_of(workload)
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert pod["automountServiceAccountToken"] is False
        for volume in pod["volumes"]:
            assert set(volume) & {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
        assert container_of(workload)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_cores_are_whole_and_guaranteed(deployed):
    """The number of threads is the CPU limit, rounded down."""
    for workload in workloads(deployed):
        resources = container_of(workload)["resources"]
        requests, limits = resources["requests"], resources["limits"]
        assert limits["cpu"] == requests["cpu"]
        assert limits["memory"] == requests["memory"]
        assert float(limits["cpu"]).is_integer()


def test_the_memory_is_enough_for_what_the_settings_allow(deployed, settings):
    for workload in workloads(deployed):
        limit = mib(container_of(workload)["resources"]["limits"]["memory"])
        assert limit >= needed_mib(limit, settings)


def test_the_command_line_takes_the_arguments(deployed):
    commands = typer.main.get_command(command_line).commands
    for workload in workloads(deployed):
        name, *arguments = container_of(workload)["args"]
        context = commands[name].make_context(name, arguments)
        assert context.params["device"] in ("auto", "cpu", "gpu")
        if workload["kind"] == "Pod":
            assert context.params["model"] == "/mnt/models/yolo.onnx"


def test_mounts_and_volumes_agree(deployed):
    for workload in workloads(deployed):
        mounted = {mount["name"] for mount in container_of(workload)["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod_of(workload)["volumes"]}


def test_settings_agree_with_ports_and_mounts(deployed, settings):
    container = container_of(server_of(deployed))
    (port,) = container["ports"]
    (keys,) = [mount for mount in container["volumeMounts"] if mount["name"] == "keys"]
    assert (settings.port, settings.host) == (port["containerPort"], "0.0.0.0")
    assert str(settings.api_keys_file).startswith(keys["mountPath"])


def test_probes_request_public_routes_of_the_server(deployed, routes, settings):
    container = container_of(server_of(deployed))
    (port,) = container["ports"]
    for probe in PROBES:
        request = container[probe]["httpGet"]
        assert request["path"] in routes
        assert request["path"] in PUBLIC
        assert request["port"] in (settings.port, port["name"])


def test_a_pod_gets_the_time_to_drain(deployed, settings):
    server = server_of(deployed)
    sleep = container_of(server)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert settings.drain_s >= settings.deadline_s
    assert pod_of(server)["terminationGracePeriodSeconds"] >= sleep + settings.drain_s + STOPPING_S


def test_kserve_scrapes_metrics_and_has_the_runtime_that_the_service_names():
    runtime, service = (read(f"kserve/{name}.yaml") for name in ("runtime", "service"))
    model, offered = service["spec"]["predictor"]["model"], runtime["spec"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in offered["protocolVersions"]
    assert model["modelFormat"]["name"] in [
        each["name"] for each in offered["supportedModelFormats"]
    ]
    environment = environment_of(container_of(kserve_pod()))
    assert offered["annotations"]["prometheus.kserve.io/port"] == environment["QYOLO_PORT"]
    assert offered["annotations"]["prometheus.kserve.io/path"] == METRICS
    assert environment["QYOLO_OPEN_METRICS"] == "1"


def test_the_service_name_does_not_set_qyolo_port(objects):
    """A Service named qyolo would set QYOLO_PORT=tcp://10.0.0.1:80, which is no port."""
    assert the(objects, "Service")["metadata"]["name"] == "qyolo"
    deployment = the(objects, "Deployment")
    assert pod_of(deployment)["enableServiceLinks"] is False
    assert environment_of(container_of(deployment))["QYOLO_PORT"] == "8000"


def test_the_job_builds_what_the_replicas_look_up(objects, monkeypatch):
    builder, replica = (container_of(the(objects, kind)) for kind in ("Job", "Deployment"))
    assert builder["image"] == replica["image"]
    assert builder["args"] == ["build", *replica["args"][1:]]
    assert replica["args"][0] == "up"
    for name in ("QYOLO_DEVICE", "QYOLO_CACHE_DIR"):
        assert environment_of(builder)[name] == environment_of(replica)[name]
    assert builder["resources"] == replica["resources"], "kernels are timed where they will run"
    mounted = [mount for mount in replica["volumeMounts"] if mount["name"] != "keys"]
    assert builder["volumeMounts"] == mounted
    for name, value in environment_of(builder).items():
        monkeypatch.setenv(name, value)
    (cache_mount,) = [mount for mount in mounted if mount["name"] == "cache"]
    assert str(cache_root()) == cache_mount["mountPath"]


def test_a_job_without_a_gpu_builds_for_those_of_the_replicas():
    builder, replica = (the(render_once("gpu-target"), kind) for kind in ("Job", "Deployment"))
    gpu = "nvidia.com/gpu"
    assert gpu not in container_of(builder)["resources"]["limits"]
    assert container_of(replica)["resources"]["limits"][gpu] == 1
    assert "runtimeClassName" not in pod_of(builder)
    targets = {environment_of(container_of(each))["QYOLO_TARGET"] for each in (builder, replica)}
    (target,) = targets
    assert set(target.split(",")) <= set(RTX_TARGETS)


def test_probes_wait_for_the_build(objects):
    deployment = the(objects, "Deployment")
    paths = {probe: container_of(deployment)[probe]["httpGet"]["path"] for probe in PROBES}
    assert list(paths.values()) == ["/readyz", "/readyz", "/healthz"]
    startup = container_of(deployment)["startupProbe"]
    wait_s = startup["periodSeconds"] * startup["failureThreshold"]
    assert 1800 <= wait_s < deployment["spec"]["progressDeadlineSeconds"]


def test_selectors_of_servers_select_no_build(objects):
    job, server = (
        the(objects, kind)["spec"]["template"]["metadata"]["labels"].items()
        for kind in ("Job", "Deployment")
    )
    for selector in (
        the(objects, "Service")["spec"]["selector"],
        the(objects, "Deployment")["spec"]["selector"]["matchLabels"],
        the(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= server
        assert not selector.items() <= job
    policy = the(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
    assert policy <= server
    assert policy <= job


def test_references_to_objects_resolve(objects):
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for workload in workloads(objects):
        for volume in pod_of(workload)["volumes"]:
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in names
            if "secret" in volume:
                assert volume["secret"]["secretName"] in BY_HAND
        for source in container_of(workload).get("envFrom", []):
            assert ("ConfigMap", source["configMapRef"]["name"]) in names


def test_the_guide_creates_the_secrets():
    guide = (DEPLOY.parent / "docs/how-to/kubernetes.md").read_text("utf-8")
    for secret in BY_HAND:
        assert f"create secret generic {secret}" in guide


@pytest.mark.parametrize(
    ("overlay", "gpus", "runtime_class"), [("cpu", 0, None), ("gpu", 1, "nvidia")]
)
def test_an_overlay_has_its_image_and_its_device(overlay, gpus, runtime_class):
    objects = render_once(overlay)
    assert container_of(the(objects, "Deployment"))["image"] == f"qyolo:{overlay}"
    for workload in workloads(objects):
        container = container_of(workload)
        assert environment_of(container)["QYOLO_DEVICE"] == overlay
        assert container["resources"]["limits"].get("nvidia.com/gpu", 0) == gpus
        assert pod_of(workload).get("runtimeClassName") == runtime_class


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_single_node_needs_no_shared_volume_and_spreads_no_pods(overlay, tmp_path):
    objects = render_with_components(overlay, tmp_path)
    claims = [each for each in objects if each["kind"] == "PersistentVolumeClaim"]
    assert {mode for claim in claims for mode in claim["spec"]["accessModes"]} == {"ReadWriteOnce"}
    assert "topologySpreadConstraints" not in pod_of(the(objects, "Deployment"))
