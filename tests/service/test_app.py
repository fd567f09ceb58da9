"""The routes of the model and the documents, over a socket."""

from tests.fakes import FakeEngine, variants_of
from tests.service.live import FP32_RAW, assert_problem, post, serving
from tests.service.pictures import jpeg


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


def test_the_report_is_the_folder_s(client):
    response = client.get("/v1/report")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"made": "up"}


def test_a_folder_without_report_is_404():
    with serving(variants_of({"fp32": FakeEngine(FP32_RAW)}, report=None)) as live:
        assert_problem(live.client.get("/v1/report"), 404)


def test_probes_and_docs(client):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json()["status"] == "ready"
    assert client.get("/docs").status_code == 200


def test_openapi_documents_bodies_pictures_and_problems(client):
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v1/detect", "/v1/models/{variant}/detect", "/v1/compare"):
        operation = paths[path]["post"]
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
        for status in (400, 404, 406, 413, 415, 422, 429, 500, 503):
            content = operation["responses"][str(status)]["content"]
            assert list(content) == ["application/problem+json"]
