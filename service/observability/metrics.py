"""Everything that /metrics shows, in a registry of its own."""

import platform
from collections.abc import Iterator, Sequence
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

from service.experiments.events import Assigned, Compared, Shadowed
from service.inference.events import Event, Retried
from service.inference.results import Answer, RawAnswer
from service.manifest import Manifest
from service.vision.agreement import match
from service.vision.detections import Detections

# 0.5 ms to 10 s in steps of 1.6: the client's default starts at 5 ms, where int8 has answered.
BUCKETS: Final = tuple(float(f"{0.0005 * 1.6**step:.4g}") for step in range(22))
# Boxes that overlap by less than 0.5 are no pair; int8's mostly overlap fp32's by more than 0.9.
IOU_BUCKETS: Final = (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1.0)
DIFFERENCE_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
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
        self._retries = Counter(
            "qyolo_replica_retries",
            "Requests that were sent to another replica, since theirs was lost",
            ["variant"],
            registry=self._registry,
        )
        self._experiment = ExperimentMetrics(self._registry)
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
        return ModelMetrics(self._stages, self._boxes, self._retries, self._experiment, manifest)

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


class ExperimentMetrics:
    """Who got which variant, and how far two of them agree."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: Sequence[str]) -> Counter:
            return Counter(name, text, labels, registry=registry)

        pair = ("a", "b", "source")
        self.assigned = counter(
            "qyolo_ab_requests",
            "Requests that named no variant, by the one that the A/B split gave them",
            ["variant"],
        )
        self.shadowed = counter(
            "qyolo_shadow_images",
            "Answers that were sampled for the shadow, by what became of them",
            ["variant", "outcome"],
        )
        self.images = counter("qyolo_agreement_images", "Images that both variants saw", pair)
        self.boxes = counter(
            "qyolo_agreement_boxes",
            "Pairs of boxes of both variants (matched), and boxes that b missed or has extra",
            [*pair, "class_name", "outcome"],
        )
        self.ious = Histogram(
            "qyolo_agreement_iou",
            "Overlap of the boxes of a pair",
            pair,
            buckets=IOU_BUCKETS,
            registry=registry,
        )
        self.differences = Histogram(
            "qyolo_agreement_score_difference",
            "Difference of the scores of a pair, absolute",
            pair,
            buckets=DIFFERENCE_BUCKETS,
            registry=registry,
        )


class ModelMetrics:
    """The metrics of the answers of one model."""

    def __init__(
        self,
        stages: Histogram,
        boxes: Counter,
        retries: Counter,
        experiment: ExperimentMetrics,
        manifest: Manifest,
    ) -> None:
        self._stages = stages
        self._boxes = boxes
        self._retries = retries
        self._experiment = experiment
        self._manifest = manifest

    def observe(self, seen: Event) -> None:
        match seen:
            case Answer() | RawAnswer():
                self._answered(seen)
            case Assigned():
                self._experiment.assigned.labels(seen.variant).inc()
            case Retried():
                self._retries.labels(seen.variant).inc()
            case Shadowed():
                self._experiment.shadowed.labels(seen.variant, seen.outcome).inc()
            case Compared():
                self._compared(seen)

    def _answered(self, answer: Answer | RawAnswer) -> None:
        for stage, seconds in answer.timings.items():
            self._stages.labels(answer.variant, self._manifest.device, stage).observe(seconds)
        if isinstance(answer, RawAnswer):
            return
        for class_id in answer.detections.class_ids.tolist():
            self._boxes.labels(answer.variant, self._manifest.class_name(class_id)).inc()

    def _compared(self, seen: Compared) -> None:
        """Whoever was asked for first, `a` is the first of both in the manifest: fp32 before int8.

        A variant beside itself says nothing.
        """
        order = list(self._manifest.variants)
        ours, theirs = (seen.a, seen.boxes_a), (seen.b, seen.boxes_b)
        if seen.a == seen.b:
            return
        if order.index(seen.a) > order.index(seen.b):
            ours, theirs = theirs, ours
        (a, boxes_a), (b, boxes_b) = ours, theirs
        pairs = match(boxes_a, boxes_b)
        differences = abs(boxes_a.scores[pairs.a] - boxes_b.scores[pairs.b])
        kinds = self._experiment
        labels = (a, b, seen.source)
        kinds.images.labels(*labels).inc()
        for kind, values in ((kinds.ious, pairs.iou), (kinds.differences, differences)):
            histogram = kind.labels(*labels)  # there with the first image, if it has no pair
            for value in values.tolist():
                histogram.observe(value)
        for outcome, found in (
            ("matched", boxes_a.take(pairs.a)),
            ("missed", boxes_a.take(pairs.only_a)),
            ("extra", boxes_b.take(pairs.only_b)),
        ):
            for name in self._classes(found):
                kinds.boxes.labels(*labels, name, outcome).inc()

    def _classes(self, found: Detections) -> Iterator[str]:
        return map(self._manifest.class_name, found.class_ids.tolist())
