"""The Serve application: an ingress, and a deployment of workers for each variant.

`serve run qyolo.cluster.application:build folder=/models/yolo`, or as `import_path` in a config.
"""

from typing import Any, Final

from ray import serve
from ray.serve import Application

from qyolo.cluster.distribution import distribute
from qyolo.cluster.ingress import Ingress
from qyolo.cluster.plan import Plan
from qyolo.cluster.worker import Worker
from service.manifest import read_manifest

INGRESS: Final = "front"  # as `serve status` shows it
BATCH: Final = 0.2  # share of the replicas that are replaced at a time where none can be added


def build(plan: Plan) -> Application:
    """Raises BadModelFolder, BadOption or BadExperiment before anything is deployed."""
    manifest = read_manifest(plan.folder)
    names = plan.served(manifest)
    model = distribute(plan.folder)
    settings, capacity = plan.settings, plan.capacity(manifest)
    most = capacity * plan.most_replicas
    common: dict[str, Any] = {
        "graceful_shutdown_timeout_s": settings.drain_s,
        "max_surge_percent": plan.surge_percent,
        "rolling_update_percentage": max(BATCH, plan.surge_percent / 100),
        "logging_config": {"enable_access_log": False},  # the ingress writes one
    }
    workers = {
        name: serve.deployment(
            name=name,
            ray_actor_options={"num_cpus": plan.cpus, "num_gpus": plan.gpus},
            autoscaling_config={
                "min_replicas": plan.min_replicas,
                "max_replicas": plan.most_replicas,
                "target_ongoing_requests": capacity / 2,  # leaves room while replicas start
            },
            max_ongoing_requests=capacity,
            max_queued_requests=most,  # in each ingress: as many wait as can be in flight
            **common,
        )(Worker).bind(model, name, settings, plan.threads, capacity)
        for name in names
    }
    admitted = 2 * most * len(names)
    ingress = serve.deployment(
        name=INGRESS,
        num_replicas=plan.fronts,
        ray_actor_options={"num_cpus": 0},  # it waits rather than computes: it fits on any node
        max_ongoing_requests=admitted + settings.max_connections,  # the surplus gets status 429
        **common,
    )(Ingress)
    return ingress.bind(model, settings, workers, admitted)
