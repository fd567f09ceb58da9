"""Everything that /metrics shows, in a registry of its own."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from service.answer import Answer
from service.manifest import Manifest

# 0.5 ms to 10 s in steps of 1.6: the client's default starts at 5 ms, where int8 has answered.
BUCKETS: Final = tuple(float(f"{0.0005 * 1.6**step:.4g}") for step in range(22))
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one application."""

    def __init__(self, version: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._stages = Histogram(
            "qyolo_stage_duration_seconds",
            "Time an image spent in a stage; queue is every wait for a free thread",
            ["variant", "device", "stage"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._boxes = Counter(
            "qyolo_detections",
            "Boxes that were answered",
            ["variant", "class_name"],
            registry=self._registry,
        )
        self._requests = Counter(
            "qyolo_http_requests",
            "Requests that were answered",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "qyolo_requests_in_flight", "Requests being answered", registry=self._registry
        )
        build = Info("qyolo_build", "The server", registry=self._registry)
        build.info({"version": version, "python": platform.python_version()})

    def model(self, manifest: Manifest) -> "ModelMetrics":
        """Show the model that is served; called once, when it is loaded."""
        info = Info("qyolo_model", "The model that is served", registry=self._registry)
        info.info(
            {
                "model": manifest.name,
                "default": manifest.default,
                "device": manifest.device,
                "head": manifest.head,
                "size": str(manifest.size),
                "source_sha256": manifest.source_sha256[:16],
            }
        )
        accepted = Gauge(
            "qyolo_variant_accepted",
            "1 for a variant that passed the build's accuracy guard, 0 for one that lost too much",
            ["variant"],
            registry=self._registry,
        )
        for name in manifest.variants:
            accepted.labels(name).set(name not in manifest.rejected)
        return ModelMetrics(self._stages, self._boxes, manifest)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        with self._in_flight.track_inprogress():
            yield

    def count_request(self, route: str, method: str, status: int) -> None:
        """`route` must be a template: a raw path would make a time series per client's whim."""
        known = method if method in METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition that the scraper prefers, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type


class ModelMetrics:
    """The metrics of the answers of one model."""

    def __init__(self, stages: Histogram, boxes: Counter, manifest: Manifest) -> None:
        self._stages = stages
        self._boxes = boxes
        self._manifest = manifest

    def observe(self, answer: Answer) -> None:
        for stage, seconds in answer.timings.items():
            self._stages.labels(answer.variant, self._manifest.device, stage).observe(seconds)
        for class_id in answer.detections.class_ids.tolist():
            self._boxes.labels(answer.variant, self._manifest.class_name(class_id)).inc()
