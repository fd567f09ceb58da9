"""Model distribution: brings a model folder to each node that needs it, once.

Each node keeps folders in its own cache under a digest of their content. A node that lacks a folder
copies it from any node that has it, since the one that deployed it may be gone.
"""

import hashlib
import logging
import random
import shutil
from dataclasses import dataclass
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


def distribute(folder: Path) -> str:
    """Copy a model folder to this node's cache; returns its digest. Raises BadModelFolder."""
    verify(folder)
    digest = _digest_of(folder)
    obtain(_cache(), digest, lambda target: shutil.copytree(folder, target, dirs_exist_ok=True))
    return digest


def fetch(digest: str) -> Path:
    """The folder in this node's cache, copied from another node where it is absent.

    Processes of one node wait for the first of them. Raises ModelUnavailable.
    """
    return obtain(_cache(), digest, lambda target: _copy_from_other_nodes(digest, target))


@dataclass(frozen=True)
class DistributedFolder:
    """A `ModelSource`: a folder that was distributed."""

    digest: str

    def folder(self, report: ReportProgress) -> Path:
        return fetch(self.digest)

    def cancel(self) -> None:
        """Nothing: a fetch ends soon, with the folder or with an error."""


def _cache() -> Path:
    """The distributed folders of this node; QYOLO_CACHE_DIR may differ between nodes."""
    return cache_root() / "cluster"


def _digest_of(folder: Path) -> str:
    """A digest of the checksums, which cover all other files."""
    return hashlib.sha256((folder / CHECKSUMS).read_bytes()).hexdigest()[:KEY_LENGTH]


def _copy_from_other_nodes(digest: str, target: Path) -> None:
    for node in _other_nodes():
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        try:
            files = ray.get(_files_of.options(scheduling_strategy=there).remote(digest))
        except RayError as exc:  # the node is shutting down or dead
            log.warning("node %s does not respond: %s", node, exc)
            continue
        if files is not None:
            for name, content in files.items():
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            verify(target)
            if _digest_of(target) != digest:
                raise BadModelFolder(f"node {node} sent another folder as {digest}")
            log.info("model folder %s came from node %s", digest, node)
            return
    raise ModelUnavailable(f"no node has the model folder {digest}: deploy it again")


def _other_nodes() -> list[str]:
    """Ids of the living nodes in random order, but the head first.

    Ray's own tools build the application on the head, so the head has the folder then.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    random.shuffle(nodes)  # so that many new nodes do not all ask the same one
    nodes.sort(key=lambda each: HEAD not in each["Resources"])
    return [each["NodeID"] for each in nodes if each["Alive"] and each["NodeID"] != here]


@ray.remote(num_cpus=0)
def _files_of(digest: str) -> dict[str, bytes] | None:
    """A folder of the node that runs this task, by path; None if it has none or a damaged one."""
    entry = lookup(_cache(), digest)
    if entry is None:
        return None
    paths = (path for path in entry.rglob("*") if path.is_file())
    return {path.relative_to(entry).as_posix(): path.read_bytes() for path in paths}
