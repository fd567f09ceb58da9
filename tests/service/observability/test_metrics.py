"""What /metrics shows after requests over a socket."""

import pytest

from tests.service.live import STAGES, post, sample, samples, serving
from tests.service.pictures import jpeg


def test_stages_boxes_and_requests_are_counted(client):
    before = samples(client)
    post(client, jpeg(), "/v1/models/fp32/detect")
    client.get("/v1/nothing")
    client.request("MKCOL", "/v1/models")
    after = samples(client)

    def rise(name: str, **labels: str) -> float:
        return sample(after, name, **labels) - sample(before, name, **labels)

    for stage in STAGES:
        labels = {"variant": "fp32", "device": "cpu", "stage": stage}
        assert rise("qyolo_stage_duration_seconds_count", **labels) == 1
        assert rise("qyolo_stage_duration_seconds_bucket", le="+Inf", **labels) == 1
    assert rise("qyolo_detections_total", variant="fp32", class_name="dog") == 1
    for route, method, status in (
        ("/v1/models/{variant}/detect", "POST", "200"),
        ("unmatched", "GET", "404"),
        ("/v1/models", "other", "405"),
    ):
        labels = {"route": route, "method": method, "status": status}
        assert rise("qyolo_http_requests_total", **labels) == 1
    assert sample(after, "qyolo_requests_in_flight") == 1  # the scrape itself


def test_buckets_start_at_half_a_millisecond_and_the_model_is_described(client):
    post(client, jpeg())
    found = samples(client)
    edges = sorted(
        float(dict(labels)["le"])
        for name, labels in found
        if name == "qyolo_stage_duration_seconds_bucket"
        and {("stage", "infer"), ("variant", "int8")} <= labels
    )
    assert edges[:3] == [0.0005, 0.0008, 0.00128]
    assert 9 < edges[-2] < 11
    infos = {name: dict(labels) for name, labels in found if name.endswith("_info")}
    assert infos["qyolo_model_info"]["model"] == "tiny"
    assert infos["qyolo_model_info"]["source_sha256"] == "ab" * 8
    assert infos["qyolo_build_info"]["version"]


def test_two_applications_share_no_metrics(client):
    post(client, jpeg())
    with serving() as other:
        assert not [name for name, _ in samples(other.client) if name.startswith("qyolo_stage")]


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text"])
def test_the_scraper_gets_the_format_it_accepts(client, accept):
    media_type = client.get("/metrics", headers={"Accept": accept}).headers["content-type"]
    assert media_type.startswith(accept or "text/plain")
