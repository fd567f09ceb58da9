"""Kubernetes objects as kustomize renders them, and what is asked of all of them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate is not installed: make test installs it"
)

Object = dict[str, Any]

DEPLOY: Final = Path(__file__).parent.parent / "deploy"
OLDEST, NEWEST = "1.30", "1.37"  # the oldest that knows all we use; what the validator has
FOREIGN: Final = {"ServiceMonitor"}  # no part of Kubernetes: no schema is published with it


def kustomize() -> list[str]:
    """The command that renders a folder; skips the test where there is none."""
    if found := shutil.which("kustomize"):
        return [found, "build"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    pytest.skip("neither kustomize nor kubectl is installed")


def render(folder: Path) -> list[Object]:
    ran = subprocess.run([*kustomize(), folder], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return list(yaml.safe_load_all(ran.stdout))


def render_with_components(overlay: Path, scratch: Path) -> list[Object]:
    """The overlay with every component there is."""
    components = sorted((DEPLOY / "kubernetes/components").iterdir())
    wanted = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(overlay, scratch.resolve())],
        "components": [os.path.relpath(path, scratch.resolve()) for path in components],
    }
    (scratch / "kustomization.yaml").write_text(yaml.safe_dump(wanted))
    return render(scratch)


def the(objects: list[Object], kind: str, name: str | None = None) -> Object:
    (found,) = [
        each
        for each in objects
        if each["kind"] == kind and name in (None, each["metadata"]["name"])
    ]
    return found


def pod_of(workload: Object) -> Object:
    return workload["spec"]["template"]["spec"]


def container_of(pod: Object) -> Object:
    (container,) = pod["containers"]
    return container


def environment_of(container: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}


def ensure_valid(each: Object, version: str) -> None:
    """By the published schemas, in which a misspelt field is an error."""
    if each["kind"] not in FOREIGN:
        kubernetes_validate.validate(each, version, strict=True)


def ensure_restricted(pod: Object) -> None:
    """By the Pod Security Standard `restricted`, and with a root that nobody can write to."""
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all(
        set(volume) & {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
        for volume in pod.get("volumes", [])
    )
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def ensure_whole_cores(container: Object) -> None:
    """Threads follow the CPU limit, rounded down: it has to be whole, and to be there for sure."""
    requests, limits = (container["resources"][each] for each in ("requests", "limits"))
    assert limits["cpu"] == requests["cpu"]
    assert limits["memory"] == requests["memory"]
    assert float(limits["cpu"]).is_integer()
