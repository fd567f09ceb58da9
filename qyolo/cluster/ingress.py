"""The ingress of a cluster: the application of a plain server, with replicas as its backend."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from qyolo.cluster.compatibility import compatibility_of
from qyolo.cluster.distribution import DistributedFolder
from qyolo.cluster.remote import RemotePipeline
from qyolo.cluster.replicas import Replicas
from qyolo.process import set_up_process
from service.app import ServedAs, create_app
from service.errors import ModelUnavailable
from service.inference.admission import Admission
from service.inference.variants import VariantSet, read_reports
from service.manifest import read_manifest
from service.observability.logs import set_up_logs
from service.settings import Settings


@serve.ingress()
class Ingress:
    """Has every route of `qyolo serve`; `handles` are the deployments by variant.

    It serves only these variants, and admits `capacity` requests.
    """

    def __init__(
        self,
        model: str,
        settings: Settings,
        handles: Mapping[str, DeploymentHandle[Any]],
        capacity: int,
    ) -> None:
        set_up_process(serves=True)
        set_up_logs(settings.log_level, settings.log_format)
        self._settings = settings
        self._handles = handles
        self._capacity = capacity
        self._application = create_app(
            settings, DistributedFolder(model), open_backend=self._open, changes=None
        )

    def __serve_build_asgi_app__(self) -> FastAPI:  # Serve calls it
        return self._application

    async def check_health(self) -> None:
        """Serve sends requests here once this has returned."""
        readiness = await self._application.state.lifecycle.settled()
        if readiness.state != "ready":
            raise ModelUnavailable(readiness.detail)

    def _open(self, folder: Path, served: ServedAs) -> RemotePipeline:
        built = read_manifest(folder)
        deployed = {name: part for name, part in built.variants.items() if name in self._handles}
        rejected = {name: why for name, why in built.rejected.items() if name in deployed}
        manifest = built.model_copy(update={"variants": deployed, "rejected": rejected})
        emit = served.observe(manifest)
        compatibility = compatibility_of(manifest)
        replicas = {
            name: Replicas(name, self._handles[name], compatibility, emit) for name in deployed
        }
        variants = VariantSet(manifest, replicas, *read_reports(folder))
        settings = self._settings
        admission = Admission(self._capacity, settings.max_bytes, settings.max_inflight_bytes)
        return RemotePipeline(
            variants,
            admission,
            settings.max_pixels,
            emit,
            served.experiment,
            settings.decode_memory,
        )
