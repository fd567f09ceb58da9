"""A/B experiments over a socket: the variant of each client, metrics, and bad settings."""

from pathlib import Path

import httpx
import pytest

from service.experiments.split import Split
from service.lifecycle import FolderSource
from tests.fakes import FakeEngine, variants_of
from tests.qyolo.commands import qyolo
from tests.service.bodies import REQUESTS
from tests.service.live import FP32_RAW, INT8_RAW, post, sample, samples, serving, two_variants
from tests.service.pictures import jpeg
from tests.waiting import wait_until

AB = "int8:0.5,fp32:0.5"
SPLIT = Split({"int8": 0.5, "fp32": 0.5})
CLIENTS = [f"camera-{number}" for number in range(12)]
PAIR = {"a": "fp32", "b": "int8"}


@pytest.fixture(scope="module")
def client():
    with serving(ab=AB) as live:
        yield live.client


def variant_for(client: httpx.Client, name: str | None, path: str = "/v1/detect") -> str:
    answer = post(client, jpeg(), path, headers={} if name is None else {"X-Qyolo-Client": name})
    assert answer.status_code == 200
    assert answer.json()["variant"] == answer.headers["x-qyolo-variant"]
    return answer.headers["x-qyolo-variant"]


def test_each_client_keeps_its_variant_on_every_replica(client):
    chosen = {name: variant_for(client, name) for name in CLIENTS}
    assert chosen == {name: SPLIT.choose(name) for name in CLIENTS}
    assert set(chosen.values()) == {"fp32", "int8"}
    with serving(ab="fp32:7, int8:7") as replica:
        assert chosen == {name: variant_for(replica.client, name) for name in CLIENTS}


def test_a_client_without_a_name_is_identified_by_its_address(client):
    assert variant_for(client, None) == SPLIT.choose("127.0.0.1")
    assert variant_for(client, "") == SPLIT.choose("127.0.0.1")


def test_a_client_with_a_key_is_identified_by_the_name_of_the_key():
    keys = {name: f"secret-of-{name}" for name in CLIENTS}
    listed = ",".join(f"{name}:{secret}" for name, secret in keys.items())
    with serving(ab=AB, api_keys=listed) as live:
        for name, secret in keys.items():
            live.client.headers["X-API-Key"] = secret
            assert variant_for(live.client, None) == SPLIT.choose(name)
        assert variant_for(live.client, "camera-0") == SPLIT.choose("camera-0")


def test_a_requested_variant_ignores_the_split(client):
    for name in CLIENTS[:4]:
        assert variant_for(client, name, "/v1/models/fp32/detect") == "fp32"
        assert variant_for(client, name, "/v1/detect?variant=int8") == "int8"
        assert variant_for(client, name, "/v1/detect?variant=auto") == SPLIT.choose(name)


@pytest.mark.parametrize("path", [path for path in REQUESTS if path != "/v1/compare"])
def test_every_route_follows_the_split(client, path):
    body, headers = REQUESTS[path]
    for name in CLIENTS:
        answer = client.post(path, content=body, headers=headers | {"X-Qyolo-Client": name})
        assert answer.headers["x-qyolo-variant"] == SPLIT.choose(name)


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"ab": "int8:3,fp32:1", "shadow": "fp32:0.05"}, {"fp32": (0.25, 0.05), "int8": (0.75, 0)}),
        ({}, {"fp32": (0, 0), "int8": (1, 0)}),
    ],
)
def test_models_shows_the_split_and_the_shadow(settings, shares):
    with serving(**settings) as live:
        rows = live.client.get("/v1/models").json()["variants"]
    assert {row["name"]: (row["share"], row["shadow"]) for row in rows} == shares


def test_metrics_count_the_requests_that_the_split_assigned(client):
    def counted() -> dict[str, float]:
        found = samples(client)
        names = ("fp32", "int8")
        return {name: sample(found, "qyolo_ab_requests_total", variant=name) for name in names}

    before = counted()
    for name in CLIENTS:
        variant_for(client, name)
        variant_for(client, name, "/v1/detect?variant=fp32")
    given = [SPLIT.choose(name) for name in CLIENTS]
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {
        name: given.count(name) for name in after
    }


@pytest.mark.parametrize("default", ["int8", "fp32"])
def test_the_shadow_s_metrics_have_one_order_of_variants(default):
    engines = {"fp32": FakeEngine(FP32_RAW), "int8": FakeEngine(INT8_RAW)}
    (other,) = set(engines) - {default}
    with serving(variants_of(engines, default=default), shadow=f"{other}:1") as live:
        for _ in range(3):
            assert variant_for(live.client, None) == default

        def value(name: str, **labels: str) -> float:
            return sample(samples(live.client), name, **labels)

        done = {"variant": other, "outcome": "done"}
        wait_until(lambda: value("qyolo_shadow_images_total", **done) == 3)
        by = PAIR | {"source": "shadow"}
        assert value("qyolo_agreement_images_total", **by) == 3
        found = {
            ("person", "matched"): 3,
            ("dog", "missed"): 3,
            ("traffic light", "extra"): 3,
            ("person", "missed"): 0,
        }
        for (name, outcome), count in found.items():
            labels = by | {"class_name": name, "outcome": outcome}
            assert value("qyolo_agreement_boxes_total", **labels) == count
        assert value("qyolo_agreement_iou_count", **by) == 3
        assert value("qyolo_agreement_iou_sum", **by) == pytest.approx(3 * 0.95, abs=1e-3)
        assert value("qyolo_agreement_iou_bucket", le="0.925", **by) == 0
        difference = "qyolo_agreement_score_difference"
        assert value(f"{difference}_sum", **by) == pytest.approx(3 * 0.05, abs=1e-3)
        stages = {"variant": other, "device": "cpu", "stage": "infer"}
        assert value("qyolo_stage_duration_seconds_count", **stages) == 0


def test_compare_has_metrics_of_its_own_unless_both_variants_are_the_same(client):
    by = PAIR | {"source": "compare"}

    def images() -> float:
        return sample(samples(client), "qyolo_agreement_images_total", **by)

    before = images()
    for query in ("", "?a=int8&b=fp32", "?a=int8&b=int8", "?conf=0.99"):
        assert post(client, jpeg(), f"/v1/compare{query}").status_code == 200
    wait_until(lambda: images() == before + 3)
    found = {key for key in samples(client) if key[0] == "qyolo_agreement_images_total"}
    assert found == {("qyolo_agreement_images_total", frozenset({"model": "tiny", **by}.items()))}


def test_openapi_documents_the_client_header(client):
    paths = client.get("/openapi.json").json()["paths"]
    parameters = {row["name"]: row["in"] for row in paths["/v1/detect"]["post"]["parameters"]}
    assert parameters["X-Qyolo-Client"] == "header"
    assert parameters["conf"] == "query"


@pytest.mark.parametrize("settings", [{"ab": "int8:1,fp16:1"}, {"shadow": "fp16:0.1"}])
def test_an_experiment_with_an_unknown_variant_fails_when_the_model_is_loaded(settings):
    variants, fp32, int8 = two_variants()
    with serving(variants, FolderSource(Path()), **settings) as live:
        wait_until(lambda: bool(live.failures))
        assert live.client.get("/readyz").json()["status"] == "failed"
    (line,) = live.failures
    assert "names no variant of this model: 'fp16'; there are: fp32, int8" in line
    assert "\n" not in line
    assert fp32.closed
    assert int8.closed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ab", "fp16:1"), "the A/B split names no variant of this model: 'fp16'"),
        (("--shadow", "fp32:2"), "the shadow: 'fp32:2' is not a variant and a share"),
    ],
)
def test_a_bad_experiment_is_one_line_and_exit_code_two(tiny_folder, options, message):
    ran = qyolo("serve", tiny_folder, "--port", 0, *options)
    assert ran.code == 2
    (line,) = (line for line in ran.err.splitlines() if line.startswith("qyolo: "))
    assert message in line
    assert "Traceback" not in ran.err
