"""deploy/kubernetes: valid, secure, and in agreement with what the server really does."""

import pytest
import typer

from qyolo.cli.commands import app as command_line
from qyolo.user_cache import cache_root
from service.app import PUBLIC, create_app
from service.lifecycle import FolderSource
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
    pod_of,
    render,
    render_with_components,
    the,
)

KUBERNETES = DEPLOY / "kubernetes"
BY_HAND = {"qyolo-keys", "qyolo-scrape"}  # Secrets that docs/how-to/kubernetes.md has one make
OF_THE_COMMAND_LINE = {"cache_dir", "device"}
STOPPING_S = 5  # the build under way is terminated, engines are freed


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def overlay(request):
    return request.param


@pytest.fixture(scope="module")
def plain(overlay):
    return render(KUBERNETES / "overlays" / overlay)


@pytest.fixture(scope="module", params=["plain", "with every component"])
def objects(request, overlay, tmp_path_factory):
    folder = KUBERNETES / "overlays" / overlay
    if request.param == "plain":
        return render(folder)
    return render_with_components(folder, tmp_path_factory.mktemp("overlay"))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid(objects, version):
    for each in objects:
        ensure_valid(each, version)


def test_the_pods_pass_the_restricted_standard(objects):
    for kind in ("Deployment", "Job"):
        pod = pod_of(the(objects, kind))
        ensure_restricted(pod)
        assert pod["automountServiceAccountToken"] is False


def test_the_service_named_qyolo_does_not_set_qyolo_port(objects):
    """QYOLO_PORT=tcp://10.0.0.1:80 would be read as a setting, and refused."""
    assert the(objects, "Service")["metadata"]["name"] == "qyolo"
    pod = pod_of(the(objects, "Deployment"))
    assert pod["enableServiceLinks"] is False
    assert environment_of(container_of(pod))["QYOLO_PORT"] == "8000"


def test_cores_are_whole_and_guaranteed(objects):
    for kind in ("Deployment", "Job"):
        ensure_whole_cores(container_of(pod_of(the(objects, kind))))


def test_the_job_builds_what_the_replicas_look_for(objects):
    job, server = (pod_of(the(objects, kind)) for kind in ("Job", "Deployment"))
    builder, replica = container_of(job), container_of(server)
    assert builder["image"] == replica["image"]
    assert builder["args"] == ["build", *replica["args"][1:]]
    assert replica["args"][0] == "up"
    for name in ("QYOLO_DEVICE", "QYOLO_CACHE_DIR"):
        assert environment_of(builder)[name] == environment_of(replica)[name]
    assert builder["resources"] == replica["resources"], "kernels are timed where they will run"
    mounted = [mount for mount in replica["volumeMounts"] if mount["name"] != "keys"]
    assert builder["volumeMounts"] == mounted


def test_the_command_line_takes_the_arguments(objects):
    commands = typer.main.get_command(command_line).commands
    for kind in ("Job", "Deployment"):
        name, *arguments = container_of(pod_of(the(objects, kind)))["args"]
        context = commands[name].make_context(name, arguments)
        assert context.params["device"] in ("auto", "cpu", "gpu")


def test_the_cache_is_on_the_volume(objects, monkeypatch):
    container = container_of(pod_of(the(objects, "Job")))
    for name, value in environment_of(container).items():
        monkeypatch.setenv(name, value)
    (cache,) = [mount for mount in container["volumeMounts"] if mount["name"] == "cache"]
    assert str(cache_root()) == cache["mountPath"]


def test_the_settings_are_settings(objects, monkeypatch):
    container = container_of(pod_of(the(objects, "Deployment")))
    given = the(objects, "ConfigMap")["data"] | environment_of(container)
    ours = {name.removeprefix("QYOLO_").lower() for name in given if name.startswith("QYOLO_")}
    assert ours - OF_THE_COMMAND_LINE <= set(Settings.model_fields)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    (port,) = container["ports"]
    (keys,) = [mount for mount in container["volumeMounts"] if mount["name"] == "keys"]
    assert (settings.port, settings.host) == (port["containerPort"], "0.0.0.0")
    assert str(settings.api_keys_file).startswith(keys["mountPath"])


def test_a_pod_gets_the_time_to_drain(objects):
    pod = pod_of(the(objects, "Deployment"))
    sleep = container_of(pod)["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(the(objects, "ConfigMap")["data"]["QYOLO_DRAIN_S"])
    assert drain >= Settings.model_fields["deadline_s"].default
    assert pod["terminationGracePeriodSeconds"] >= sleep + drain + STOPPING_S


def test_probes_ask_routes_that_need_no_key_and_wait_for_the_build(objects, tmp_path):
    deployment = the(objects, "Deployment")
    container = container_of(pod_of(deployment))
    routes = create_app(Settings(), FolderSource(tmp_path)).openapi()["paths"]
    paths = {}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        paths[probe] = container[probe]["httpGet"]["path"]
        assert paths[probe] in routes
        assert paths[probe] in PUBLIC
    assert paths["readinessProbe"] == paths["startupProbe"] == "/readyz"
    assert paths["livenessProbe"] == "/healthz"
    patience = (
        container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
    )
    assert 1800 <= patience < deployment["spec"]["progressDeadlineSeconds"]


def test_what_selects_servers_selects_no_build(objects):
    job = the(objects, "Job")["spec"]["template"]["metadata"]["labels"].items()
    server = the(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
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


def test_whatever_is_named_exists(objects):
    named = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for kind in ("Deployment", "Job"):
        pod = pod_of(the(objects, kind))
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in container_of(pod)["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in named
            if "secret" in volume:
                assert volume["secret"]["secretName"] in BY_HAND
        for source in container_of(pod).get("envFrom", []):
            assert ("ConfigMap", source["configMapRef"]["name"]) in named


def test_the_secrets_made_by_hand_are_in_the_guide():
    guide = (DEPLOY.parent / "docs/how-to/kubernetes.md").read_text("utf-8")
    for secret in BY_HAND:
        assert f"create secret generic {secret}" in guide


def test_images_are_ours_and_name_no_registry(overlay, plain):
    assert container_of(pod_of(the(plain, "Deployment")))["image"] == f"qyolo:{overlay}"


def test_a_gpu_is_asked_for_where_one_is_needed(overlay, plain):
    for kind in ("Deployment", "Job"):
        pod = pod_of(the(plain, kind))
        container = container_of(pod)
        assert environment_of(container)["QYOLO_DEVICE"] == overlay
        gpus = container["resources"]["limits"].get("nvidia.com/gpu", 0)
        assert (gpus, pod.get("runtimeClassName")) == (
            (1, "nvidia") if overlay == "gpu" else (0, None)
        )


def test_on_one_node_nothing_is_spread(overlay, tmp_path):
    objects = render_with_components(KUBERNETES / "overlays" / overlay, tmp_path)
    claims = [each for each in objects if each["kind"] == "PersistentVolumeClaim"]
    assert {mode for claim in claims for mode in claim["spec"]["accessModes"]} == {"ReadWriteOnce"}
    assert "topologySpreadConstraints" not in pod_of(the(objects, "Deployment"))
