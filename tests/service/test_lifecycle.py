"""The server while its model is built, loaded or stopped, and when it cannot be served."""

import socket
import time
from pathlib import Path

import pytest

from service.errors import NotReady
from service.lifecycle import FolderSource
from service.progress import Progress
from tests.fakes import FailingSource, HeldSource
from tests.service.live import assert_problem, post, sample, samples, serving, stalled, two_variants
from tests.service.pictures import jpeg
from tests.waiting import wait_until


def test_during_a_build_probes_answer_and_other_routes_report_its_progress():
    source = HeldSource(Progress("calibrating", 12, 96))
    variants, *_ = two_variants()
    with serving(variants, source) as live:
        assert live.client.get("/healthz").status_code == 200
        wait_until(lambda: live.client.get("/readyz").json()["phase"] is not None)
        ready = live.client.get("/readyz")
        assert ready.status_code == 503
        assert "retry-after" in ready.headers
        content = ready.json()
        assert (content["status"], content["phase"]) == ("building", "calibrating")
        assert (content["done"], content["total"]) == (12, 96)
        for response in (post(live.client, jpeg()), live.client.get("/v1/models")):
            problem = assert_problem(response, 503)
            assert "retry-after" in response.headers
            assert "calibrating 12 of 96" in problem["detail"]
        source.release()
        wait_until(lambda: live.client.get("/readyz").status_code == 200)
        assert post(live.client, jpeg()).status_code == 200


def test_shutdown_cancels_a_build_which_is_no_failure():
    with serving(source=HeldSource(Progress("calibrating"))) as live:
        wait_until(lambda: live.client.get("/readyz").json()["phase"] == "calibrating")
        live.exit()
    assert live.failures == []


def test_shutdown_does_not_wait_for_a_build_that_ignores_it():
    class Deaf(HeldSource):
        def cancel(self) -> None:
            pass

    source = Deaf(Progress("calibrating"))
    with serving(source=source, drain_s=1) as live:
        began = time.monotonic()
        live.exit()
        assert 1 <= time.monotonic() - began < 1 + 2
        source.release()
    assert live.failures == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (FolderSource(Path("/secret/folder")), "/secret/folder is not a model folder: "),
        (FailingSource(ValueError("/secret/file")), "ValueError: /secret/file"),
        (FailingSource(SystemExit("/secret/file")), "SystemExit: /secret/file"),
    ],
)
def test_only_the_log_says_why_a_model_cannot_be_served(source, message, caplog):
    with serving(source=source) as live:
        wait_until(lambda: bool(live.failures))
        ready = live.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["status"] == "failed"
        assert "secret" not in ready.text
        assert "secret" not in post(live.client, jpeg()).text
    assert live.failures[0].startswith(message)
    assert message in caplog.text


def test_a_rejected_variant_is_reported_and_served_on_request():
    variants, *_ = two_variants()
    reason = "its boxes disagree with fp32's by 0.400, more than 0.15"
    variants.manifest = variants.manifest.model_copy(
        update={"default": "fp32", "rejected": {"int8": reason}}
    )
    with serving(variants) as live:
        ready = live.client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["detail"] == f"fp32 is served, int8 was rejected: {reason}"
        rows = {row["name"]: row for row in live.client.get("/v1/models").json()["variants"]}
        assert (rows["fp32"]["rejected"], rows["int8"]["rejected"]) == (None, reason)
        assert post(live.client, jpeg()).json()["variant"] == "fp32"
        assert post(live.client, jpeg(), "/v1/models/int8/detect").json()["variant"] == "int8"
        found = samples(live.client)
        for variant, accepted in (("fp32", 1), ("int8", 0)):
            assert sample(found, "qyolo_variant_accepted", variant=variant) == accepted


def test_shutdown_lets_accepted_requests_finish_and_closes_the_engines():
    variants, fp32, int8 = two_variants()
    with serving(variants) as live, stalled(int8, live) as request:
        live.server.should_exit = True
        wait_until(lambda: refuses_connections(live.port))
        int8.gate.set()
        assert request.result().status_code == 200
        assert request.result().headers["connection"] == "close"
        live.exit()
        with pytest.raises(NotReady, match="the server is stopping"):
            _ = live.server.config.app.state.lifecycle.backend
    assert fp32.closed
    assert int8.closed


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False
