"""Hundreds of generated requests: every response is as the OpenAPI document says."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.service.live import serving
from tests.service.pictures import jpeg

EXAMPLES = 30  # of each operation, of each kind
NOT_CHECKED = [positive_data_acceptance]  # bytes that match the schema are rarely an image


@pytest.fixture(scope="module")
def document():
    with serving(max_bytes=100_000) as live:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{live.port}/openapi.json")


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_response_is_documented(document, mode):
    """Status, media type, headers and body; requests that violate the schema are rejected."""
    held = 0
    for operation in (found.ok() for found in document.get_all_operations()):
        if mode.is_negative and not (operation.body or operation.query):
            continue  # no request can violate it

        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case: Case) -> None:
            case.call_and_validate(excluded_checks=NOT_CHECKED)

        holds()
        held += 1
    assert held >= (3 if mode.is_negative else 9)


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/models/{variant}/detect", "/v1/compare"])
@pytest.mark.parametrize("accept", ["application/json", "image/png"])
def test_a_response_with_boxes_is_as_documented(document, path, accept):
    sent = {"path_parameters": {"variant": "int8"}, "headers": {"Accept": accept}}
    case = document[path]["POST"].Case(body=jpeg(), media_type="application/octet-stream", **sent)
    assert case.call_and_validate().status_code == 200
