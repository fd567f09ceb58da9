"""A model folder on every node that needs it, brought there once.

Each node keeps folders in its own cache, named by their content. A node that lacks one asks the
others, so no process and no node has to outlive the deployment: any node that has it will do.
"""

import hashlib
import logging
import random
import shutil
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qyolo.user_cache import cache_root
from service.errors import BadModelFolder, ModelUnavailable
from service.folder_cache import KEY_LENGTH, lookup, obtain
from service.manifest import CHECKSUMS, verify
from service.progress import ReportProgress

HEAD: Final = "node:__internal_head__"  # the resource by which Ray marks its head node

log = logging.getLogger(__name__)


def store() -> Path:
    """Where this node keeps the folders, by QYOLO_CACHE_DIR as this node has it."""
    return cache_root() / "cluster"


def ship(folder: Path) -> str:
    """Put a model folder on this node's shelf; returns its name there. Raises BadModelFolder."""
    verify(folder)
    name = _name_of(folder)
    obtain(store(), name, lambda target: shutil.copytree(folder, target, dirs_exist_ok=True))
    return name


def receive(name: str) -> Path:
    """The folder on this node's shelf, brought from another node where it is not there yet.

    Processes of one node wait for the first of them. Raises ModelUnavailable.
    """
    return obtain(store(), name, lambda target: _bring(name, target))


class Shipped:
    """A `ModelSource`: a folder that was shipped."""

    def __init__(self, name: str) -> None:
        self._name = name

    def folder(self, report: ReportProgress) -> Path:
        return receive(self._name)

    def cancel(self) -> None:
        """It comes, or another node says that it will not, soon enough."""


def _name_of(folder: Path) -> str:
    """A digest of the checksums, which are of all else."""
    return hashlib.sha256((folder / CHECKSUMS).read_bytes()).hexdigest()[:KEY_LENGTH]


def _bring(name: str, target: Path) -> None:
    for node in _other_nodes():
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        try:
            files = ray.get(_files_of.options(scheduling_strategy=there).remote(name))
        except RayError as exc:  # it is going, or gone
            log.warning("node %s does not answer: %s", node, exc)
            continue
        if files is not None:
            _write(files, target)
            verify(target)
            if _name_of(target) != name:
                raise BadModelFolder(f"what came as model folder {name} is another one")
            log.info("model folder %s came from node %s", name, node)
            return
    raise ModelUnavailable(f"no node has the model folder {name}: deploy it again")


def _other_nodes() -> list[str]:
    """Ids of the living, the head first: what is deployed by Ray's own tools starts there."""
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    random.shuffle(nodes)  # so that many newcomers do not all ask the same one
    nodes.sort(key=lambda each: HEAD not in each["Resources"])
    return [each["NodeID"] for each in nodes if each["Alive"] and each["NodeID"] != here]


@ray.remote(num_cpus=0)
def _files_of(name: str) -> dict[str, bytes] | None:
    """The files of a folder on the shelf of the node that this runs on, if it has it, whole."""
    entry = lookup(store(), name)
    if entry is None:
        return None
    paths = (path for path in entry.rglob("*") if path.is_file())
    return {path.relative_to(entry).as_posix(): path.read_bytes() for path in paths}


def _write(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
