"""The metrics of one application, in a registry of its own."""

import platform
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, get_args

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
from service.inference.comparison import Outcome
from service.inference.results import (
    Answer,
    EngineFailure,
    Event,
    FailureReason,
    RawAnswer,
    Retried,
)
from service.manifest import Manifest
from service.vision.agreement import match
from service.vision.detections import Detections

# 0.5 ms to 10 s in steps of 1.6; the client's default starts at 5 ms, which int8 undercuts.
BUCKETS: Final = tuple(float(f"{0.0005 * 1.6**step:.4g}") for step in range(22))
# Boxes that overlap by less than 0.5 are not paired; int8's mostly overlap fp32's by over 0.9.
IOU_BUCKETS: Final = (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 1.0)
DIFFERENCE_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
WAIT_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5),
    *(1.0, 2.5, 5.0, 10.0),
)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
PAIR: Final = ("model", "a", "b", "source")


class Metrics:
    """The metrics of /metrics; `observer` adds those of the served model."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        ProcessCollector(registry=self.registry)
        self._stages = histogram(
            "qyolo_stage_duration_seconds",
            "Duration of each stage of an image; queue is all waiting for a free thread",
            ["model", "variant", "device", "stage"],
            buckets=BUCKETS,
        )
        self._boxes = counter(
            "qyolo_detections", "Boxes in responses", ["model", "variant", "class_name"]
        )
        self._requests = counter(
            "qyolo_http_requests", "Completed requests", ["route", "method", "status"]
        )
        self._zmq_requests = counter(
            "qyolo_zmq_requests",
            "Requests of Frigate's zmq detector, with the status that HTTP has for the outcome",
            ["status"],
        )
        self.in_flight = gauge("qyolo_requests_in_flight", "Requests in flight")
        self._queue_wait = histogram(
            "qyolo_queue_wait_seconds",
            "Wait of each answered image or tensor for a thread and for the engine",
            buckets=WAIT_BUCKETS,
        )
        self.predicted_wait = gauge(
            "qyolo_predicted_wait_seconds",
            "Predicted wait of a request behind all that are in progress",
        )
        self._retries = counter(
            "qyolo_replica_retries",
            "Requests sent to another replica because the first one was lost",
            ["model", "variant"],
        )
        self._assigned = counter(
            "qyolo_ab_requests",
            "Requests without variant, by the variant that the A/B split assigned",
            ["model", "variant"],
        )
        self._shadowed = counter(
            "qyolo_shadow_images",
            "Images sampled for the shadow variant, by outcome",
            ["model", "variant", "outcome"],
        )
        self._compared_images = counter(
            "qyolo_agreement_images", "Images on which two variants were compared", PAIR
        )
        self._compared_boxes = counter(
            "qyolo_agreement_boxes",
            "Boxes that both variants found (matched), only a (missed) or only b (extra)",
            [*PAIR, "class_name", "outcome"],
        )
        self._ious = histogram(
            "qyolo_agreement_iou", "IoU of matched boxes", PAIR, buckets=IOU_BUCKETS
        )
        self._score_differences = histogram(
            "qyolo_agreement_score_difference",
            "Absolute difference of the scores of matched boxes",
            PAIR,
            buckets=DIFFERENCE_BUCKETS,
        )
        self._failures = counter(
            "qyolo_engine_failures",
            "Failures of engines: error, not_finite (NaN in the outputs), hang, load (a broken "
            "engine cannot be loaded again)",
            ["model", "reason"],
        )
        self._models = Info("qyolo_model", "The served models", ["model"], registry=self.registry)
        self._accepted = gauge(
            "qyolo_variant_accepted",
            "1 if the variant passed the build's accuracy gate, else 0",
            ["model", "variant"],
        )
        self._described: dict[str, tuple[str, ...]] = {}  # the variants of each model
        self._memory = gauge(
            "qyolo_model_memory_bytes",
            "Memory that a model took when it was loaded; 0: it is unloaded until it is requested",
            ["model"],
        )
        self._reloads = counter(
            "qyolo_model_reloads",
            "New versions of a model: switched, offered (compared only) or refused",
            ["model", "outcome"],
        )
        build = Info("qyolo_build", "The server's versions", registry=self.registry)
        build.info({"version": version, "python": platform.python_version()})

    def observer(self, manifest: Manifest) -> Callable[[Event], None]:
        """What counts the events of a version of a model."""
        for reason in get_args(FailureReason):  # a series that begins at 1 shows no increase
            self._failures.labels(manifest.name, reason)
        return partial(self._observe, manifest)

    def describe(self, manifest: Manifest, memory_bytes: int) -> None:
        """Describe the version of a model that is served; 0 bytes: it is unloaded."""
        name = manifest.name
        if name in self._described:
            self._models.remove(name)
        for variant in self._described.get(name, ()):
            self._accepted.remove(name, variant)
        self._described[name] = tuple(manifest.variants)
        self._models.labels(name).info(
            {
                "default": manifest.default,
                "device": manifest.device,
                "head": manifest.head,
                "size": str(manifest.size),
                "source_sha256": manifest.source_sha256[:16],
            }
        )
        for variant in manifest.variants:
            self._accepted.labels(name, variant).set(variant not in manifest.rejected)
        self._memory.labels(name).set(memory_bytes)

    def count_reload(self, model: str, outcome: Outcome) -> None:
        """Another version of a model was tried."""
        self._reloads.labels(model, outcome).inc()

    def count_request(self, route: str, method: str, status: int) -> None:
        """`route` must be a template: each raw path would make a new time series."""
        known = method if method in METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()

    def count_zmq_request(self, status: int) -> None:
        self._zmq_requests.labels(str(status)).inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition in the format that the Accept header prefers, and its media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    def _observe(self, manifest: Manifest, event: Event) -> None:
        match event:
            case Answer() | RawAnswer():
                self._count_answer(manifest, event)
            case Assigned():
                self._assigned.labels(manifest.name, event.variant).inc()
            case Retried():
                self._retries.labels(manifest.name, event.variant).inc()
            case EngineFailure():
                self._failures.labels(manifest.name, event.reason).inc()
            case Shadowed():
                self._shadowed.labels(manifest.name, event.variant, event.outcome).inc()
            case Compared():
                self._count_comparison(manifest, event)

    def _count_answer(self, manifest: Manifest, answer: Answer | RawAnswer) -> None:
        for stage, seconds in answer.timings.items():
            device = manifest.device_of(answer.variant)
            labels = (manifest.name, answer.variant, device, stage)
            self._stages.labels(*labels).observe(seconds)
        self._queue_wait.observe(answer.timings.get("queue", 0.0))
        if isinstance(answer, Answer):
            for name in _class_names(manifest, answer.detections):
                self._boxes.labels(manifest.name, answer.variant, name).inc()

    def _count_comparison(self, manifest: Manifest, event: Compared) -> None:
        """Label `a` is always the variant that the manifest lists first: fp32 before int8.

        A variant compared with itself is not counted.
        """
        if event.a == event.b:
            return
        order = list(manifest.variants)
        sides = [(event.a, event.boxes_a), (event.b, event.boxes_b)]
        (a, boxes_a), (b, boxes_b) = sorted(sides, key=lambda side: order.index(side[0]))
        pairs = match(boxes_a, boxes_b)
        differences = abs(boxes_a.scores[pairs.a] - boxes_b.scores[pairs.b])
        labels = (manifest.name, a, b, event.source)
        self._compared_images.labels(*labels).inc()
        for histogram, values in ((self._ious, pairs.iou), (self._score_differences, differences)):
            series = histogram.labels(*labels)  # exists from the first image on, even without pairs
            for value in values.tolist():
                series.observe(value)
        for outcome, boxes in (
            ("matched", boxes_a.take(pairs.a)),
            ("missed", boxes_a.take(pairs.only_a)),
            ("extra", boxes_b.take(pairs.only_b)),
        ):
            for name in _class_names(manifest, boxes):
                self._compared_boxes.labels(*labels, name, outcome).inc()


def _class_names(manifest: Manifest, boxes: Detections) -> Iterator[str]:
    return map(manifest.class_name, boxes.class_ids.tolist())
