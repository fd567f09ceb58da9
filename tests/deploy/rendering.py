"""The objects of deploy/ as a cluster gets them."""

import os
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.processes import run

Object = dict[str, Any]

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
KUBERNETES: Final = DEPLOY / "kubernetes"
OF_AN_INFERENCE_SERVICE: Final = {"minReplicas", "maxReplicas", "model"}


def read(path: str) -> Object:
    return yaml.safe_load((DEPLOY / path).read_text("utf-8"))


def render(overlay: str) -> list[Object]:
    return _kustomize(KUBERNETES / "overlays" / overlay)


def render_with_components(overlay: str, scratch: Path) -> list[Object]:
    """The overlay with every component there is."""

    def relative(path: Path) -> str:
        return os.path.relpath(path, scratch.resolve())

    components = sorted((KUBERNETES / "components").iterdir())
    wanted = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative(KUBERNETES / "overlays" / overlay)],
        "components": [relative(path) for path in components],
    }
    (scratch / "kustomization.yaml").write_text(yaml.safe_dump(wanted))
    return _kustomize(scratch)


def _kustomize(folder: Path) -> list[Object]:
    """Skips the test if there is no kustomize."""
    if found := shutil.which("kustomize"):
        command = [found, "build"]
    elif found := shutil.which("kubectl"):
        command = [found, "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is installed")
    return list(yaml.safe_load_all(run(*command, folder)))


def kserve_pod() -> Object:
    """As KServe combines it: the runtime's container and volumes, the predictor's pod."""
    runtime, predictor = read("kserve/runtime.yaml"), read("kserve/service.yaml")
    predictor = predictor["spec"]["predictor"]
    (container,) = runtime["spec"]["containers"]
    container |= {"args": [*container["args"], *predictor["model"]["args"]]}
    pod = {name: value for name, value in predictor.items() if name not in OF_AN_INFERENCE_SERVICE}
    pod |= {"containers": [container], "volumes": runtime["spec"]["volumes"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "street"}, "spec": pod}


def the(objects: list[Object], kind: str) -> Object:
    """The only object of this kind."""
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def pod_of(workload: Object) -> Object:
    return workload["spec"] if workload["kind"] == "Pod" else workload["spec"]["template"]["spec"]


def container_of(workload: Object) -> Object:
    (container,) = pod_of(workload)["containers"]
    return container


def environment_of(container: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"]}
