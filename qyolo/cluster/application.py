"""The Serve application: fronts, and a deployment of workers for each variant.

`serve run qyolo.cluster.application:build folder=/models/yolo`, or as `import_path` in a config.
"""

from typing import Any, Final

from ray import serve
from ray.serve import Application

from qyolo.cluster.distribution import ship
from qyolo.cluster.ingress import Ingress
from qyolo.cluster.plan import Plan
from qyolo.cluster.worker import Worker
from service.manifest import read_manifest

FRONT: Final = "front"
BATCH: Final = 0.2  # of the replicas, that are replaced at a time where none are started beside


def build(plan: Plan) -> Application:
    """Ships the model folder from this node; raises BadModelFolder, BadOption, BadExperiment."""
    manifest = read_manifest(plan.folder)
    names = plan.served(manifest)
    model = ship(plan.folder)
    settings, capacity = plan.settings, plan.capacity(manifest)
    most = capacity * plan.most_replicas
    lasting: dict[str, Any] = {
        "graceful_shutdown_timeout_s": settings.drain_s,
        "max_surge_percent": plan.surge_percent,
        "rolling_update_percentage": max(BATCH, plan.surge_percent / 100),
        "logging_config": {"enable_access_log": False},  # a front has its own
    }
    workers = {
        name: serve.deployment(
            name=name,
            ray_actor_options={"num_cpus": plan.cpus, "num_gpus": plan.gpus},
            autoscaling_config={
                "min_replicas": plan.min_replicas,
                "max_replicas": plan.most_replicas,
                "target_ongoing_requests": capacity / 2,  # the rest is for while more start
            },
            max_ongoing_requests=capacity,
            max_queued_requests=most,  # by each front: as many wait as can be worked on
            **lasting,
        )(Worker).bind(model, name, settings, plan.threads, capacity)
        for name in names
    }
    room = 2 * most * len(names)
    front = serve.deployment(
        name=FRONT,
        num_replicas=plan.fronts,
        ray_actor_options={"num_cpus": 0},  # it waits, and must find a place on any node
        max_ongoing_requests=room + settings.max_connections,  # so that it can refuse itself
        **lasting,
    )(Ingress)
    return front.bind(model, settings, workers, room)
