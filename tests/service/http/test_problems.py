"""Errors of the server as a whole, over a socket."""

import logging

import pytest

from service.errors import EngineFailed
from tests.fakes import FakeEngine, variants_of
from tests.service.live import FP32_RAW, assert_problem, post, serving
from tests.service.pictures import jpeg


def test_an_unknown_route_is_404(client):
    for path in ("/v1/nothing", "/v1/models/"):
        assert_problem(client.get(path), 404)


def test_a_wrong_method_is_405_and_names_the_right_one(client):
    response = client.get("/v1/detect")
    assert_problem(response, 405)
    assert response.headers["allow"] == "POST"


def test_a_request_id_comes_back_if_it_is_valid(client):
    for request_id, valid in (("a-1", True), ("x" * 65, False), ("a b", False)):
        response = client.get("/healthz", headers={"X-Request-ID": request_id})
        assert (response.headers["x-request-id"] == request_id) is valid


@pytest.mark.parametrize(
    "failure", [EngineFailed("/root/secret 1.2.3"), RuntimeError("/root/secret 1.2.3")]
)
def test_only_the_log_says_why_a_request_failed(failure, caplog):
    engine = FakeEngine(FP32_RAW)
    engine.failure = failure
    with serving(variants_of({"fp32": engine})) as live:
        with caplog.at_level(logging.ERROR, logger="service"):
            response = post(live.client, jpeg())
        problem = assert_problem(response, 500)
        assert problem["title"] == "Internal Server Error"
        assert "secret" not in response.text
        assert "Traceback" not in response.text
        (error,) = (each for each in caplog.records if each.levelno == logging.ERROR)
        assert error.fields["request_id"] == response.headers["x-request-id"]
        assert "/root/secret 1.2.3" in caplog.text
        assert "Traceback" in caplog.text
        engine.failure = None
        assert post(live.client, jpeg()).status_code == 200
