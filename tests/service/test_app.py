"""The server as a whole over a socket: comparing, listing, measuring, failing, starting, ending."""

import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.errors import BadModelFolder, EngineFailed
from service.lifecycle import FolderSource
from service.progress import Progress
from tests.fakes import PATIENCE_S, FailingSource, FakeEngine, HeldSource, variants_of
from tests.service.http.test_detect import DOG, PERSON, STAGES, assert_problem, post
from tests.service.live import FP32_RAW, serving, two_variants, wait_until
from tests.service.pictures import jpeg


@pytest.fixture(scope="module")
def live():
    variants, *_ = two_variants()
    with serving(variants) as running:
        yield running


@pytest.fixture
def client(live):
    return live.client


def test_compare_pairs_the_boxes_of_both_variants(client):
    content = post(client, jpeg(), "/v1/compare").json()
    assert content["model"] == "tiny"
    assert content["image"] == {"width": 200, "height": 100}
    assert (content["a"]["variant"], content["a"]["boxes"]) == ("fp32", 2)
    assert (content["b"]["variant"], content["b"]["boxes"]) == ("int8", 2)
    (pair,) = content["matched"]
    assert (pair["class_id"], pair["class_name"]) == (0, "person")
    assert pair["iou"] == pytest.approx(0.95, abs=1e-3)
    assert (pair["score_a"], pair["score_b"]) == (0.9, 0.85)
    assert pair["box_a"] == PERSON["box"]
    assert pair["box_b"] == [76.25, 37.5, 123.75, 62.5]
    assert content["only_a"] == [DOG]
    assert [row["class_name"] for row in content["only_b"]] == ["traffic light"]
    assert content["mean_iou"] == pair["iou"]
    assert content["mean_score_difference"] == pytest.approx(0.05, abs=1e-3)
    assert content["max_score_difference"] == pytest.approx(0.05, abs=1e-3)


def test_compare_gives_both_latencies_on_one_decode(client):
    content = post(client, jpeg(), "/v1/compare").json()
    a, b = content["a"]["timings_ms"], content["b"]["timings_ms"]
    assert set(a) == set(b) == STAGES
    assert (a["decode"], a["preprocess"]) == (b["decode"], b["preprocess"])


def test_compare_takes_names_and_filters(client):
    content = post(client, jpeg(), "/v1/compare?a=int8&b=int8&classes=person").json()
    assert (content["a"]["variant"], content["b"]["variant"]) == ("int8", "int8")
    assert content["mean_iou"] == 1.0
    assert content["only_a"] == content["only_b"] == []


def test_compare_of_nothing_has_no_means(client):
    content = post(client, jpeg(), "/v1/compare?conf=0.99").json()
    assert content["matched"] == []
    assert content["mean_iou"] is content["max_score_difference"] is None


def test_compare_refuses_an_unknown_variant(client):
    assert_problem(post(client, jpeg(), "/v1/compare?b=fp16"), 404)


def test_models_lists_the_variants(client):
    content = client.get("/v1/models").json()
    assert content["model"] == "tiny"
    assert content["default"] == "int8"
    assert content["size"] == 64
    assert content["class_names"] == ["person", "traffic light", "dog"]
    variants = {row["name"]: row for row in content["variants"]}
    assert {name: row["precision"] for name, row in variants.items()} == {
        "fp32": "fp32",
        "int8": "int8",
    }
    assert variants["int8"]["default"]
    assert not variants["fp32"]["default"]
    assert variants["fp32"]["rejected"] is variants["int8"]["rejected"] is None
    assert post(client, jpeg(), variants["fp32"]["detect"]).status_code == 200


def test_a_variant_that_was_rejected_is_shown_everywhere_and_served_on_request():
    variants, *_ = two_variants()
    reason = "its boxes disagree with fp32's by 0.400, more than 0.15"
    manifest = variants.manifest.model_copy(
        update={"default": "fp32", "rejected": {"int8": reason}}
    )
    variants.manifest = manifest
    with serving(variants) as live:
        ready = live.client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["detail"] == f"fp32 is served, int8 was rejected: {reason}"
        rows = {row["name"]: row for row in live.client.get("/v1/models").json()["variants"]}
        assert (rows["fp32"]["rejected"], rows["int8"]["rejected"]) == (None, reason)
        assert post(live.client, jpeg()).json()["variant"] == "fp32"
        assert post(live.client, jpeg(), "/v1/models/int8/detect").json()["variant"] == "int8"
        accepted = {
            dict(labels)["variant"]: value
            for (name, labels), value in samples(live.client).items()
            if name == "qyolo_variant_accepted"
        }
        assert accepted == {"fp32": 1.0, "int8": 0.0}


def test_report_is_the_folders_own(client):
    answer = client.get("/v1/report")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"made": "up"}


def test_probes_and_docs(client):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json()["status"] == "ready"
    assert client.get("/docs").status_code == 200


def test_an_unknown_route_is_a_404_problem(client):
    assert_problem(client.get("/v1/nothing"), 404)
    assert_problem(client.get("/v1/models/"), 404)


def test_a_wrong_method_is_a_405_problem_that_names_the_right_one(client):
    answer = client.get("/v1/detect")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_a_request_id_comes_back_unless_it_is_unfit(client):
    assert client.get("/healthz", headers={"X-Request-ID": "a-1"}).headers["x-request-id"] == "a-1"
    unfit = "x" * 65
    assert client.get("/healthz", headers={"X-Request-ID": unfit}).headers["x-request-id"] != unfit


def test_openapi_documents_bodies_pictures_and_problems(client):
    operation = client.get("/openapi.json").json()["paths"]["/v1/detect"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "multipart/form-data",
        "image/*",
        "application/octet-stream",
        "application/json",
    }
    assert set(operation["responses"]["200"]["content"]) == {
        "application/json",
        "image/jpeg",
        "image/png",
    }
    for status in ("400", "404", "406", "413", "415", "422", "429", "500", "503"):
        assert list(operation["responses"][status]["content"]) == ["application/problem+json"]


def samples(client: httpx.Client) -> dict[tuple[str, frozenset], float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def sample(found: dict, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def test_metrics_count_stages_boxes_and_requests(client):
    before = samples(client)
    post(client, jpeg(), "/v1/models/fp32/detect")
    client.get("/v1/nothing")
    client.request("BREW", "/v1/models")
    after = samples(client)

    def rise(name: str, **labels: str) -> float:
        return sample(after, name, **labels) - sample(before, name, **labels)

    for stage in STAGES:
        labels = {"variant": "fp32", "device": "cpu", "stage": stage}
        assert rise("qyolo_stage_duration_seconds_count", **labels) == 1
        assert rise("qyolo_stage_duration_seconds_bucket", le="+Inf", **labels) == 1
    assert rise("qyolo_detections_total", variant="fp32", class_name="dog") == 1
    route = "/v1/models/{variant}/detect"
    assert rise("qyolo_http_requests_total", route=route, method="POST", status="200") == 1
    unmatched = {"route": "unmatched", "method": "GET", "status": "404"}
    assert rise("qyolo_http_requests_total", **unmatched) == 1
    odd = {"route": "/v1/models", "method": "other", "status": "405"}
    assert rise("qyolo_http_requests_total", **odd) == 1
    assert sample(after, "qyolo_requests_in_flight") == 1  # the scrape itself


def test_no_path_of_a_client_becomes_a_label(client):
    client.get("/secret/path")
    post(client, jpeg(), "/v1/models/whatever/detect")
    labels = {value for _, pairs in samples(client) for _, value in pairs}
    assert not {value for value in labels if "secret" in value or "whatever" in value}


def test_metrics_start_at_half_a_millisecond_and_describe_the_model(client):
    post(client, jpeg())
    found = samples(client)
    edges = sorted(
        float(dict(labels)["le"])
        for name, labels in found
        if name == "qyolo_stage_duration_seconds_bucket" and ("stage", "infer") in labels
        and ("variant", "int8") in labels
    )  # fmt: skip
    assert edges[:3] == [0.0005, 0.0008, 0.00128]
    assert 9 < edges[-2] < 11
    infos = {name: dict(labels) for name, labels in found if name.endswith("_info")}
    assert infos["qyolo_model_info"]["model"] == "tiny"
    assert infos["qyolo_model_info"]["source_sha256"] == "ab" * 8
    assert infos["qyolo_build_info"]["version"]


def test_two_applications_share_no_metrics(client):
    post(client, jpeg())
    variants, *_ = two_variants()
    with serving(variants) as other:
        assert not [key for key in samples(other.client) if key[0].startswith("qyolo_stage")]


@pytest.mark.parametrize(
    "failure", [EngineFailed("/root/secret 1.2.3"), RuntimeError("/root/secret 1.2.3")]
)
def test_a_failure_is_logged_but_tells_the_client_nothing(failure, caplog):
    engine = FakeEngine(FP32_RAW)
    engine.failure = failure
    with serving(variants_of({"fp32": engine})) as live:
        with caplog.at_level(logging.ERROR, logger="service"):
            answer = post(live.client, jpeg())
        problem = assert_problem(answer, 500)
        assert problem["title"] == "Internal Server Error"
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        assert "/root/secret 1.2.3" in caplog.text
        assert "Traceback" in caplog.text
        engine.failure = None
        assert post(live.client, jpeg()).status_code == 200


def test_a_folder_without_report_is_404():
    with serving(variants_of({"fp32": FakeEngine(FP32_RAW)}, report=None)) as live:
        assert_problem(live.client.get("/v1/report"), 404)


def test_a_full_house_answers_429_at_once_and_then_recovers():
    engine = FakeEngine(FP32_RAW)
    with serving(variants_of({"fp32": engine}), capacity=1) as live, ThreadPoolExecutor(1) as pool:
        engine.gate.clear()
        waiting = pool.submit(post, live.client, jpeg())
        assert engine.entered.wait(PATIENCE_S)
        answer = post(live.client, jpeg())
        assert answer.headers["retry-after"] == "1"
        assert_problem(answer, 429)
        assert live.client.get("/healthz").status_code == 200
        engine.gate.set()
        assert waiting.result().status_code == 200
        assert post(live.client, jpeg()).status_code == 200


def in_flight(client: httpx.Client) -> float:
    return sample(samples(client), "qyolo_requests_in_flight")


def test_a_client_that_hangs_up_keeps_its_slot_until_its_work_has_ended():
    engine = FakeEngine(FP32_RAW)
    with serving(variants_of({"fp32": engine}), capacity=1) as live:
        engine.gate.clear()
        with sent_detect(live.port):
            assert engine.entered.wait(PATIENCE_S)
        wait_until(lambda: in_flight(live.client) == 1)
        assert post(live.client, jpeg()).status_code == 429  # the engine is still at it
        engine.gate.set()
        wait_until(lambda: post(live.client, jpeg()).status_code == 200)


@contextmanager
def sent_detect(port: int) -> Iterator[None]:
    """A client that has sent its request and hangs up, without an answer, when the block ends."""
    data = jpeg()
    head = (
        "POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + data)
        yield


def test_nobody_works_for_a_client_that_hung_up_in_the_queue():
    engine = FakeEngine(FP32_RAW)
    with serving(variants_of({"fp32": engine}), capacity=2) as live, ThreadPoolExecutor(1) as pool:
        engine.gate.clear()
        first = pool.submit(post, live.client, jpeg())
        assert engine.entered.wait(PATIENCE_S)
        with sent_detect(live.port):
            wait_until(lambda: in_flight(live.client) == 3)
            time.sleep(0.1)  # nothing tells from outside that it has come as far as the queue
        wait_until(lambda: in_flight(live.client) == 2)
        engine.gate.set()
        assert first.result().status_code == 200
        assert post(live.client, jpeg()).status_code == 200
    assert engine.calls == 2


def test_a_client_that_hangs_up_within_its_body_leaves_nothing_behind():
    engine = FakeEngine(FP32_RAW)
    with serving(variants_of({"fp32": engine}), capacity=1) as live:
        head = "POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
        with socket.create_connection(("127.0.0.1", live.port)) as connection:
            connection.sendall(head.encode() + b"Content-Length: 1000\r\n\r\nabc")
            wait_until(lambda: in_flight(live.client) == 2)
        wait_until(lambda: in_flight(live.client) == 1)
        assert post(live.client, jpeg()).status_code == 200
        lost = {"route": "/v1/detect", "method": "POST", "status": "499"}
        assert sample(samples(live.client), "qyolo_http_requests_total", **lost) == 1


def test_shutdown_lets_accepted_requests_finish_and_frees_the_engines():
    variants, fp32, int8 = two_variants()
    with serving(variants) as live, ThreadPoolExecutor(1) as pool:
        int8.gate.clear()
        waiting = pool.submit(post, live.client, jpeg())
        assert int8.entered.wait(PATIENCE_S)
        live.server.should_exit = True
        wait_until(lambda: refuses_connections(live.port))
        int8.gate.set()
        assert waiting.result().status_code == 200
        assert waiting.result().headers["connection"] == "close"  # the client need not find out
        live.exit()
    assert fp32.closed
    assert int8.closed


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


def test_while_building_probes_answer_and_detection_says_how_far_it_is():
    source = HeldSource(Progress("calibrating", 12, 96))
    variants, *_ = two_variants()
    with serving(variants, source) as live:
        assert live.client.get("/healthz").status_code == 200
        wait_until(lambda: live.client.get("/readyz").json()["phase"] is not None)
        answer = live.client.get("/readyz")
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        content = answer.json()
        assert (content["status"], content["phase"]) == ("building", "calibrating")
        assert (content["done"], content["total"]) == (12, 96)
        for refused in (post(live.client, jpeg()), live.client.get("/v1/models")):
            problem = assert_problem(refused, 503)
            assert "retry-after" in refused.headers
            assert "calibrating 12 of 96" in problem["detail"]
        source.release()
        wait_until(lambda: live.client.get("/readyz").status_code == 200)
        assert post(live.client, jpeg()).status_code == 200


def test_shutdown_cancels_a_build_without_calling_it_a_failure():
    with serving(source=HeldSource(Progress("calibrating"))) as live:
        wait_until(lambda: live.client.get("/readyz").json()["phase"] == "calibrating")
        live.exit()
    assert live.failures == []


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (BadModelFolder("/secret/folder is corrupt"), "/secret/folder is corrupt"),
        (ValueError("/secret/file"), "ValueError: /secret/file"),
    ],
)
def test_a_build_that_fails_is_told_to_the_operator_only(failure, message, caplog):
    with serving(source=FailingSource(failure)) as live:
        wait_until(lambda: bool(live.failures))
        answer = live.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["status"] == "failed"
        assert "secret" not in answer.text
        assert "secret" not in post(live.client, jpeg()).text
    assert live.failures == [message]
    assert message in caplog.text


def test_a_folder_that_is_no_model_folder_fails(tmp_path):
    with serving(source=FolderSource(tmp_path)) as live:
        wait_until(lambda: bool(live.failures))
        assert live.client.get("/readyz").json()["status"] == "failed"
    assert "is not a model folder" in live.failures[0]
