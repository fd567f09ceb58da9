"""Engines that fail: what a server answers, and how it recovers or ends."""

import math
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from service.errors import EngineFailed
from service.http.exchange import INSTEAD_OF
from service.inference.detector import Detector
from service.inference.health import FAILURES
from tests.fakes import FakeEngine, variants_of
from tests.service.bodies import REQUESTS
from tests.service.live import (
    FP32_RAW,
    Live,
    assert_problem,
    post,
    sample,
    samples,
    serving,
    serving_folder,
    two_variants,
)
from tests.service.pictures import jpeg
from tests.service.tiny import write_model_folder
from tests.waiting import WAIT_LIMIT_S, wait_until

NAN_RAW = np.where(FP32_RAW == 0, np.float32(math.nan), FP32_RAW)
TENSOR = "/v2/models/tiny/infer"


class Panic(BaseException):
    """As a library in Rust raises it."""


class Reloading:
    """A model of one variant, whose first engine is `engine`; later ones come from `fresh`."""

    def __init__(self) -> None:
        self.engine = FakeEngine(FP32_RAW)
        self.fresh: list[FakeEngine] = []
        self.loads = 0
        self.variants = variants_of({"fp32": self.engine})
        self.variants.load = self.load

    def load(self, name: str) -> Detector:
        self.loads += 1
        if not self.fresh:
            raise EngineFailed("/secret/path")
        return Detector(self.fresh.pop(0), self.variants.manifest)


@pytest.fixture
def model():
    return Reloading()


def failures_of(live: Live, reason: str) -> float:
    return sample(samples(live.client), "qyolo_engine_failures_total", reason=reason)


def ready(live: Live) -> bool:
    return live.client.get("/readyz").status_code == 200


def fail(engine: FakeEngine, failure: object) -> None:
    """Let it raise this error, or return what is not finite."""
    if isinstance(failure, BaseException):
        engine.failure = failure
    else:
        engine.raw = NAN_RAW


@pytest.mark.parametrize(
    ("failure", "reason", "detail"),
    [
        (EngineFailed("/secret"), "error", "its last inferences failed"),
        (ZeroDivisionError("/secret"), "error", "its last inferences failed"),
        (Panic("/secret"), "error", "its last inferences failed"),
        ("NaN", "not_finite", "its outputs are not finite numbers"),
    ],
    ids=["error", "bug", "panic", "NaN"],
)
def test_an_engine_that_fails_is_out_of_service_until_it_is_loaded_again(
    model, failure, reason, detail
):
    fail(model.engine, failure)
    with serving(model.variants) as live:
        for _ in range(FAILURES):
            assert ready(live)
            assert_problem(post(live.client, jpeg()), 500)
        problem = assert_problem(post(live.client, jpeg()), 503, "variant-failed")
        assert problem["detail"] == f"fp32 failed: {detail}"
        assert failures_of(live, reason) == FAILURES
        wait_until(lambda: failures_of(live, "load") > 0)  # it will try again
        state = live.client.get("/readyz")
        assert (state.status_code, state.json()["status"]) == (503, "failed")
        assert f"fp32 failed: {detail}" in state.json()["detail"]
        assert "secret" not in state.text
        assert live.client.get("/v2/health/ready").status_code == 503
        assert live.client.get("/v2/models/tiny/ready").status_code == 503
        assert live.client.get("/v2/models/tiny/versions/fp32/ready").status_code == 503
        index = live.client.post("/v2/repository/index").json()
        assert {row["state"] for row in index} == {"UNAVAILABLE"}
        assert live.client.get("/healthz").status_code == 200
        assert live.client.get("/v1/models").status_code == 200
        calls = model.engine.calls
        for path, (body, headers) in REQUESTS.items():
            assert live.client.post(path, content=body, headers=headers).status_code == 503
        assert model.engine.calls - calls <= 2  # its own attempts
        model.fresh.append(FakeEngine(FP32_RAW))
        wait_until(lambda: ready(live))
        assert post(live.client, jpeg()).status_code == 200
        assert model.engine.closed
        assert failures_of(live, reason) == FAILURES
        assert live.failures == []


def test_a_real_engine_is_loaded_again_from_its_folder(tmp_path):
    write_model_folder(tmp_path)
    with serving_folder(tmp_path) as live:
        before = post(live.client, jpeg()).json()["detections"]
        variants = live.server.config.app.state.lifecycle.backend.variants
        for name in ("other", "fp32"):
            variants.get(name).close()
            path = f"/v1/models/{name}/detect"
            for _ in range(FAILURES):
                assert post(live.client, jpeg(), path).status_code == 500
        wait_until(lambda: post(live.client, jpeg()).headers.get("x-qyolo-variant") == "other")
        answer = post(live.client, jpeg())
        assert (answer.json()["variant"], answer.json()["detections"]) == ("other", before)
        (tmp_path / "other" / "model.xml").unlink()
        variants.get("other").close()
        for _ in range(FAILURES):
            assert post(live.client, jpeg()).status_code == 500
        wait_until(lambda: failures_of(live, "load") > 0)
        wait_until(lambda: post(live.client, jpeg()).headers.get(INSTEAD_OF) == "other")


def test_a_new_engine_that_fails_too_is_not_used(model):
    model.engine.failure = EngineFailed("broken")
    bad, good = FakeEngine(NAN_RAW), FakeEngine(FP32_RAW)
    model.fresh += [bad, good]
    with serving(model.variants) as live:
        for _ in range(FAILURES):
            post(live.client, jpeg())
        wait_until(lambda: post(live.client, jpeg()).status_code == 200)
    assert bad.closed
    assert good.calls >= 2
    assert model.loads == 2


def test_an_engine_that_works_again_needs_no_new_one(model):
    model.engine.failure = EngineFailed("broken")
    with serving(model.variants) as live:
        for _ in range(FAILURES):
            post(live.client, jpeg())
        wait_until(lambda: model.loads > 0)
        model.engine.failure = None
        wait_until(lambda: ready(live))
        assert post(live.client, jpeg()).status_code == 200


def test_failures_that_are_not_in_a_row_take_nothing_out_of_service(model):
    with serving(model.variants) as live:
        for _ in range(2 * FAILURES):
            model.engine.failure = EngineFailed("at times")
            assert post(live.client, jpeg()).status_code == 500
            model.engine.failure = None
            assert post(live.client, jpeg()).status_code == 200
    assert model.loads == 0


def test_another_variant_takes_the_place_of_a_default_that_fails_and_the_answer_says_so():
    variants, _, int8 = two_variants()
    int8.failure = EngineFailed("broken")
    with serving(variants) as live:
        for _ in range(FAILURES):
            assert post(live.client, jpeg()).status_code == 500
        for path, (body, headers) in REQUESTS.items():
            if path == "/v1/compare":
                continue
            answer = live.client.post(path, content=body, headers=headers)
            assert answer.status_code == 200, path
            assert answer.headers["x-qyolo-variant"] == "fp32"
            assert answer.headers[INSTEAD_OF] == "int8"
        named = post(live.client, jpeg(), "/v1/models/fp32/detect")
        assert named.status_code == 200
        assert INSTEAD_OF not in named.headers
        assert_problem(post(live.client, jpeg(), "/v1/models/int8/detect"), 503, "variant-failed")
        assert_problem(post(live.client, jpeg(), "/v1/compare"), 503, "variant-failed")
        state = live.client.get("/readyz")
        assert state.status_code == 200
        assert state.json()["detail"].startswith("fp32 answers for int8; int8 failed: ")
        assert live.client.get("/v2/health/ready").status_code == 200
        assert live.client.get("/v2/models/tiny/versions/int8/ready").status_code == 503
        int8.failure = None
        wait_until(lambda: INSTEAD_OF not in post(live.client, jpeg()).headers)


def test_a_variant_that_the_accuracy_gate_rejected_takes_no_place():
    variants, fp32, _ = two_variants()
    rejected = {"default": "fp32", "rejected": {"int8": "its boxes disagree"}}
    variants.manifest = variants.manifest.model_copy(update=rejected)
    fp32.failure = EngineFailed("broken")
    with serving(variants) as live:
        for _ in range(FAILURES):
            post(live.client, jpeg())
        assert post(live.client, jpeg()).status_code == 503
        assert not ready(live)
        assert post(live.client, jpeg(), "/v1/models/int8/detect").status_code == 200


def test_a_broken_variant_of_a_split_is_replaced_by_the_default():
    variants, fp32, _ = two_variants()
    fp32.failure = EngineFailed("broken")
    with serving(variants, ab="fp32:1") as live:
        for _ in range(FAILURES):
            assert post(live.client, jpeg()).status_code == 500
        answer = post(live.client, jpeg())
        assert (answer.json()["variant"], answer.headers[INSTEAD_OF]) == ("int8", "fp32")


# Hangs

FAST = {"deadline_s": 0.1}  # so that an inference hangs after 0.3 s


def hang(live: Live, engine: FakeEngine) -> None:
    engine.gate.clear()
    assert post(live.client, jpeg()).status_code == 504
    wait_until(lambda: failures_of(live, "hang") == 1)


def test_a_hanging_engine_is_replaced_and_keeps_neither_slot_nor_thread(model):
    with serving(model.variants, capacity=1, **FAST) as live:
        hang(live, model.engine)
        state = live.client.get("/readyz")
        assert state.status_code == 503
        assert live.client.get("/v2/health/ready").status_code == 503
        assert_problem(post(live.client, jpeg()), 503, "variant-failed")
        model.fresh.append(FakeEngine(FP32_RAW))
        wait_until(lambda: ready(live))
        for _ in range(5):
            assert post(live.client, jpeg()).status_code == 200
        assert not model.engine.closed  # something still runs in it
        model.engine.gate.set()
        live.exit()
    assert live.failures == []


def test_other_variants_infer_while_one_hangs_and_a_late_return_ends_it():
    variants, _, int8 = two_variants()
    with serving(variants, **FAST) as live:
        hang(live, int8)
        answer = post(live.client, jpeg())
        assert answer.status_code == 200
        assert (answer.json()["variant"], answer.headers[INSTEAD_OF]) == ("fp32", "int8")
        int8.gate.set()
        wait_until(lambda: INSTEAD_OF not in post(live.client, jpeg()).headers)


def test_the_first_tensor_may_take_as_long_as_to_compile_the_graph(model):
    body, headers = REQUESTS[TENSOR]
    with serving(model.variants, **FAST) as live:
        model.engine.gate.clear()
        assert live.client.post(TENSOR, content=body, headers=headers).status_code == 504
        time.sleep(6 * FAST["deadline_s"])
        assert ready(live)
        model.engine.gate.set()
        wait_until(lambda: post(live.client, jpeg()).status_code == 200)
    assert model.loads == 0


def test_a_server_with_a_hanging_engine_stops_when_the_drain_is_over():
    engine = FakeEngine(FP32_RAW)
    with serving(variants_of({"fp32": engine}), drain_s=1) as live:
        engine.gate.clear()
        request = threading.Thread(target=lambda: _ignore_errors(live))
        request.start()
        assert engine.entered.wait(WAIT_LIMIT_S)
        began = time.monotonic()
        live.exit()
        assert 1 <= time.monotonic() - began < 1 + 2
        assert not live.server.config.app.state.lifecycle.has_ended
        engine.gate.set()
        request.join()


def _ignore_errors(live: Live) -> None:
    with suppress(Exception):
        post(live.client, jpeg())


# The end


@pytest.mark.parametrize("failure", [EngineFailed("broken"), "NaN", None], ids=str)
def test_a_server_ends_when_nothing_can_be_recovered(model, failure):
    with serving(model.variants, drain_s=1, **FAST) as live:
        if failure is None:
            hang(live, model.engine)
        else:
            fail(model.engine, failure)
            for _ in range(FAILURES):
                assert post(live.client, jpeg()).status_code == 500
        began = time.monotonic()
        wait_until(lambda: bool(live.failures))
        assert 0.4 < time.monotonic() - began < 2
        assert live.failures[0].startswith("no variant can be recovered: fp32 failed: ")
        assert live.client.get("/readyz").json()["status"] == "failed"
        model.engine.gate.set()


def test_an_engine_that_only_fails_in_use_is_not_loaded_for_ever(model):
    """Each new one infers a blank image, and then fails."""

    class Fails(FakeEngine):
        def infer(self, tensor):
            if tensor.any():
                raise EngineFailed("broken")
            return super().infer(tensor)

    model.engine.failure = EngineFailed("broken")
    model.fresh += [Fails(FP32_RAW) for _ in range(100)]
    with serving(model.variants, drain_s=1) as live:

        def ended() -> bool:
            assert post(live.client, jpeg()).status_code in (500, 503)
            return bool(live.failures)

        wait_until(ended)
    assert model.loads <= 4


def test_while_another_variant_answers_the_server_goes_on():
    variants, _, int8 = two_variants()
    int8.failure = EngineFailed("broken")
    with serving(variants, drain_s=1) as live:
        for _ in range(FAILURES):
            post(live.client, jpeg())
        time.sleep(1.5)
        assert ready(live)
        assert live.failures == []


# What is no failure of an engine


def test_what_a_tensor_causes_is_not_the_engine_s_failure(model):
    class Sensitive(FakeEngine):
        def infer_tensor(self, tensor):
            if np.isnan(tensor).any():
                raise EngineFailed("an index out of range")
            return super().infer_tensor(tensor) + tensor.max()

    body, headers = REQUESTS[TENSOR]
    bad = {
        200: np.full(len(body) // 4, np.inf, np.float32).tobytes(),
        500: np.full(len(body) // 4, np.nan, np.float32).tobytes(),
    }
    sensitive = Sensitive(FP32_RAW)
    with serving(variants_of({"fp32": sensitive})) as live:
        for status, tensor in bad.items():
            for _ in range(2 * FAILURES):
                answer = live.client.post(TENSOR, content=tensor, headers=headers)
                assert answer.status_code == status
        assert ready(live)
        assert post(live.client, jpeg()).status_code == 200
        sensitive.failure = EngineFailed("broken")
        for _ in range(FAILURES):
            assert live.client.post(TENSOR, content=body, headers=headers).status_code == 500
        assert not ready(live)


def test_a_process_without_memory_has_no_broken_engine(model):
    model.engine.failure = MemoryError()
    with serving(model.variants) as live:
        for _ in range(2 * FAILURES):
            assert post(live.client, jpeg()).status_code >= 500
        assert ready(live)


def test_a_panic_is_counted_as_500_and_not_as_a_client_that_left(model):
    model.engine.failure = Panic()
    with serving(model.variants) as live:
        assert_problem(post(live.client, jpeg()), 500)
        found = samples(live.client)
        labels = {"route": "/v1/detect", "method": "POST"}
        assert sample(found, "qyolo_http_requests_total", status="500", **labels) == 1
        assert sample(found, "qyolo_http_requests_total", status="499", **labels) == 0
