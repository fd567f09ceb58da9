"""Every metric of the server with its type, labels and meaning, as one page."""

from typing import Final

from prometheus_client.metrics import MetricWrapperBase

from service.manifest import Manifest
from service.observability.metrics import Metrics

HEAD: Final = """# Metrics

`GET /metrics` answers in Prometheus' format. [alerts.yml](../alerts.yml) has rules on these
metrics. The stages are decode, preprocess, queue, infer, postprocess and total; their histogram
goes from 0.5 ms to 10 s in steps of 1.6. `route` is the template of a route.

| metric | type | labels | meaning |
|---|---|---|---|
"""
TAIL: Final = """
The Prometheus client adds `process_*`: memory, processor time, open files.
"""
SUFFIXES: Final = {"counter": "_total", "info": "_info"}


def page() -> str:
    metrics = Metrics("0")
    metrics.observer(_manifest())
    collectors = metrics.registry._collector_to_names  # no public way to their labels
    rows = [_row(each) for each in collectors if isinstance(each, MetricWrapperBase)]
    return HEAD + "\n".join(sorted(rows)) + "\n" + TAIL


def _row(metric: MetricWrapperBase) -> str:
    (family,) = metric.describe()
    name = family.name + SUFFIXES.get(family.type, "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"| `{name}` | {family.type} | {labels} | {family.documentation} |"


def _manifest() -> Manifest:
    """The manifest of any model: some metrics appear with the model."""
    return Manifest(
        name="",
        device="cpu",
        size=640,
        head="yolov8",
        preprocess="yolo",
        class_names=(),
        default="fp32",
        variants={"fp32": {"runtime": "openvino", "precision": "fp32", "model": "model.xml"}},
        source_sha256="",
        versions={},
        created="",
    )
