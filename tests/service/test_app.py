"""The routes of the model and the documents, over a socket."""

from tests.fakes import FakeEngine, variants_of
from tests.service.live import FP32_RAW, assert_problem, serving


def test_models_lists_the_variants(client):
    content = client.get("/v1/models").json()
    shown = {
        key: content[key] for key in ("model", "default", "size", "width", "height", "class_names")
    }
    assert shown == {
        "model": "tiny",
        "default": "int8",
        "size": 64,
        "width": 64,
        "height": 64,
        "class_names": ["person", "traffic light", "dog"],
    }
    keys = ("name", "precision", "default", "rejected", "detect")
    assert [tuple(row[key] for key in keys) for row in content["variants"]] == [
        (name, name, name == "int8", None, f"/v1/models/{name}/detect") for name in ("fp32", "int8")
    ]


def test_the_report_is_the_folder_s(client):
    response = client.get("/v1/report")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"made": "up"}


def test_a_folder_without_report_is_404():
    with serving(variants_of({"fp32": FakeEngine(FP32_RAW)}, report=None)) as live:
        assert_problem(live.client.get("/v1/report"), 404)


def test_healthz_and_readyz_answer(client):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json()["status"] == "ready"


def test_openapi_documents_bodies_pictures_and_problems(client):
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v1/detect", "/v1/models/{variant}/detect", "/v1/compare"):
        operation = paths[path]["post"]
        bodies = ("multipart/form-data", "image/*", "application/octet-stream", "application/json")
        assert set(operation["requestBody"]["content"]) == set(bodies)
        answers = {"application/json", "image/jpeg", "image/png"}
        assert set(operation["responses"]["200"]["content"]) == answers
        for status in (400, 404, 406, 413, 415, 422, 429, 500, 503):
            content = operation["responses"][str(status)]["content"]
            assert list(content) == ["application/problem+json"]
