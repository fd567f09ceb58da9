"""docker-compose.yml and the images: hardened, limited, closed to the network, and consistent."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from urllib.parse import urlsplit

import pytest

from qyolo.camera.config import WatchConfig
from service.settings import Settings
from tests.deploy.memory import mib, needed_mib
from tests.docker.compose import ROOT, read, variables
from tests.processes import run
from tests.qyolo.commands import inline

COMPOSE = read("docker-compose.yml")
SERVICES = COMPOSE["services"]
SERVERS = {name for name, each in SERVICES.items() if str(each.get("command")).startswith("up ")}
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


def test_without_a_profile_it_builds_and_then_serves():
    assert {name for name, each in SERVICES.items() if "profiles" not in each} == {"build", "qyolo"}
    assert {"fp32", "int8", "qyolo-gpu", "qyolo-intel", "qyolo"} == SERVERS


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_a_server_waits_for_the_build_of_the_same_model_and_options(name):
    ((build, condition),) = SERVICES[name]["depends_on"].items()
    assert condition == {"condition": "service_completed_successfully"}
    assert SERVICES[build]["image"] == SERVICES[name]["image"]
    assert SERVICES[build]["volumes"] == SERVICES[name]["volumes"]
    _, *built = shlex.split(SERVICES[build]["command"])
    _, *served = shlex.split(SERVICES[name]["command"])
    assert built == served


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_hardened_and_limited(name):
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["restart"] == ("no" if name.startswith("build") else "unless-stopped")
    assert "max-size" in service["logging"]["options"]
    assert re.search(r":(v?\d+\.\d+\.\d+|cpu|gpu|intel|camera)$", service["image"])
    assert "privileged" not in service
    assert not any("docker.sock" in str(volume) for volume in service["volumes"])


@pytest.mark.parametrize("name", ["build-intel", "qyolo-intel"])
def test_a_container_for_an_intel_gpu_gets_its_device_and_group(name):
    service = read("docker-compose.yml", QYOLO_RENDER_GROUP="992")["services"][name]
    assert service["devices"] == ["/dev/dri"]
    assert service["group_add"] == ["992"]
    assert service["build"]["args"].keys() == {"DEVICE", "DRIVER"}


def test_the_camera_is_watched_beside_the_server():
    given = {"QYOLO_SOURCE": "rtsp://camera/1", "QYOLO_CAMERA_OPTIONS": "--classes person,car"}
    camera = read("docker-compose.yml", **given)["services"]["camera"]
    assert camera["profiles"] == ["camera"]
    assert camera["depends_on"] == {"qyolo": {"condition": "service_healthy"}}
    command, *options = shlex.split(camera["command"])
    configs: list[WatchConfig] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qyolo.cli.serve_commands.set_up_logs", lambda *_: None)
        patch.setattr("qyolo.camera.watch.watch", configs.append)
        ran = inline(command, *options, **camera["environment"])
    assert ran.code == 0, ran.err
    (config,) = configs
    assert (config.source, config.classes) == ("rtsp://camera/1", "person,car")
    assert (config.mqtt, config.api_key) == (None, None)
    assert camera["ports"] == [f"127.0.0.1:8090:{config.mjpeg_port}"]
    assert camera["environment"]["QYOLO_PORT"] == str(config.mjpeg_port)
    host, port = urlsplit(camera["environment"]["QYOLO_SERVER"]).netloc.split(":")
    assert host in SERVERS
    assert SERVICES[host]["ports"][0].endswith(f":{port}")


def test_the_camera_s_image_has_the_packages_of_its_command():
    assert SERVICES["camera"]["build"]["args"] == {"LOCK": "camera"}
    text = (ROOT / "requirements/camera.lock").read_text(encoding="utf-8")
    assert {"av", "paho-mqtt"} <= set(re.findall(r"^([\w-]+)==", text, re.MULTILINE))


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_the_memory_is_enough_for_what_the_settings_allow(name):
    limit = mib(SERVICES[name]["deploy"]["resources"]["limits"]["memory"])
    assert limit >= needed_mib(limit, Settings())


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name):
    ports = SERVICES[name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_on_another_address_the_server_needs_keys():
    services = read("docker-compose.yml", QYOLO_ADDRESS="192.0.2.7")["services"]
    for name in SERVERS:
        (port,) = services[name]["ports"]
        assert port.startswith("192.0.2.7:")
        settings = Settings(published=services[name]["environment"]["QYOLO_PUBLISHED"])
        assert not settings.published.is_loopback
        assert "QYOLO_INSECURE" not in services[name]["environment"]


def test_keys_are_for_all_servers():
    keys = read("docker/keys.yml", QYOLO_KEYS="./keys")
    assert keys["services"].keys() == SERVERS
    for service in keys["services"].values():
        assert service["environment"] == {"QYOLO_API_KEYS_FILE": "/run/secrets/api_keys"}
        assert service["secrets"] == ["api_keys"]
    assert keys["secrets"]["api_keys"]["file"] == "./keys"


def test_the_variables_of_servers_are_settings():
    known = {f"QYOLO_{name.upper()}" for name in Settings.model_fields}
    for name in SERVERS:
        assert SERVICES[name]["environment"].keys() <= known


def test_each_variable_is_documented():
    text = (ROOT / "docs/how-to/containers.md").read_text(encoding="utf-8")
    for name in variables("docker-compose.yml") | variables("docker/keys.yml"):
        assert f"`{name}`" in text, name


@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed")
def test_docker_compose_reads_both_files():
    command = ["docker", "compose", "-f", "docker-compose.yml", "-f", "docker/keys.yml"]
    command += ["--env-file", "/dev/null", "--profile", "*", "config", "--format", "json"]
    others = {name: value for name, value in os.environ.items() if not name.startswith("QYOLO_")}
    environment = others | {"QYOLO_KEYS": "./keys"}
    shown = run(*command, cwd=ROOT, env=environment)
    assert json.loads(shown)["services"].keys() == SERVICES.keys()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_unprivileged_and_installs_from_lock_files_only(path):
    text = path.read_text(encoding="utf-8")
    build, final = text.split("\nFROM ")[1:]
    assert "USER 10001:10001\n" in final
    assert final.index("USER ") < final.index("ENTRYPOINT")
    assert 'ENTRYPOINT ["qyolo"]' in final
    assert "HEALTHCHECK" in final
    assert "pip" not in final.replace("ENTRYPOINT", "")
    installs = re.findall(r"pip --python \S+ install[^&]+", build)
    assert len(installs) == 3
    assert all("--require-hashes" in each or "--no-index" in each for each in installs)


def test_the_build_backend_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (backend,) = project["build-system"]["requires"]
    assert f"{backend} \\\n" in (ROOT / "requirements/build.lock").read_text(encoding="utf-8")


def test_the_images_have_the_same_packages():
    def locked(name: str) -> dict[str, str]:
        text = (ROOT / f"requirements/{name}.lock").read_text(encoding="utf-8")
        return dict(re.findall(r"^([\w-]+)==(\S+)", text, re.MULTILINE))

    cpu, gpu, tensorrt = locked("cpu"), locked("gpu"), locked("tensorrt")
    cuda = {"cuda-bindings", "cuda-pathfinder"}
    rtx = {"tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs"}
    assert cpu.keys() - gpu.keys() == {"openvino", "openvino-telemetry"}
    assert gpu.keys() - cpu.keys() == cuda | rtx
    assert gpu.keys() - tensorrt.keys() == rtx
    shared = cpu.keys() & gpu.keys()
    assert {name: gpu[name] for name in shared} == {name: cpu[name] for name in shared}


def test_the_images_have_the_version_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for path in DOCKERFILES:
        assert f"ARG VERSION={project['project']['version']}\n" in path.read_text(encoding="utf-8")
