"""Start a server on a real socket, and make its requests."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from service.app import NO_SAMPLES, ROUTINE, Changes, create_app, local_backend
from service.inference.detector import Detector
from service.inference.models import ModelFolder
from service.inference.variants import VariantSet
from service.lifecycle import FolderSource, ModelSource
from service.observability.tracing import Tracing
from service.settings import Settings
from service.transport.config import server_config
from service.transport.listener import open_listener
from service.transport.server import Server
from tests import plain_http
from tests.fakes import FakeEngine, variants_of, yolov5_raw
from tests.service.pictures import jpeg
from tests.waiting import WAIT_LIMIT_S, wait_until

# In a 200x100 image: scale 0.32, 16 rows of padding above; fp32 detects a person, a dog below the
# person's score, a duplicate of the person, and something too faint.
FP32_RAW = yolov5_raw(
    [
        (12.0, 24.0, 8.0, 8.0, 0.6, 2),
        (32.0, 32.0, 16.0, 8.0, 0.9, 0),
        (32.5, 32.0, 16.0, 8.0, 0.8, 0),
        (50.0, 40.0, 8.0, 8.0, 0.1, 1),
    ]
)
# int8 detects the person a little smaller, no dog, and a traffic light.
INT8_RAW = yolov5_raw([(32.0, 32.0, 15.2, 8.0, 0.85, 0), (50.0, 40.0, 8.0, 8.0, 0.5, 1)])

PERSON = {"box": [75.0, 37.5, 125.0, 62.5], "score": 0.9, "class_id": 0, "class_name": "person"}
DOG = {"box": [25.0, 12.5, 50.0, 37.5], "score": 0.6, "class_id": 2, "class_name": "dog"}
STAGES = {"decode", "preprocess", "queue", "infer", "postprocess", "total"}


@dataclass(frozen=True)
class Live:
    """A running server; `exit` stops it as SIGTERM does, and waits for its end."""

    client: httpx.Client
    port: int
    server: uvicorn.Server
    thread: threading.Thread
    failures: list[str]

    def exit(self) -> None:
        self.server.should_exit = True
        self.thread.join(WAIT_LIMIT_S)
        assert not self.thread.is_alive()


@contextmanager
def serving(
    variants: VariantSet[Detector] | None = None,
    source: ModelSource | None = None,
    traces: Tracing | None = None,
    load: Callable[[Path, int, bool], VariantSet[Detector]] | None = None,
    others: Sequence[ModelFolder] = (),
    changes: Changes = NO_SAMPLES,
    **settings: object,
) -> Iterator[Live]:
    """Serve until the block ends: the given variants, else the source's folder, else two fakes.

    `load` loads every folder in place of its engines; `others` are more models.
    """
    if variants is None and source is None and load is None:
        variants, *_ = two_variants()
    failures: list[str] = []
    # More than any test sends at once, unless it is about the capacity.
    chosen = Settings.model_validate({"capacity": 32, "port": 0} | settings)
    if variants is not None:
        load = lambda *_: variants  # noqa: E731
    app = create_app(
        chosen,
        source or FolderSource(Path()),
        failures.append,
        load and local_backend(chosen, load),
        traces=traces,
        others=others,
        changes=changes,
    )
    server = Server(server_config(app, chosen, ROUTINE), app.state.lifecycle.begin_drain)
    listener = open_listener(chosen)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        wait_until(lambda: server.started)
        with plain_http.client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_LIMIT_S) as client:
            live = Live(client, port, server, thread, failures)
            if source is None:
                wait_until(lambda: client.get("/readyz").status_code == 200)
            yield live
    finally:
        server.should_exit = True
        thread.join(WAIT_LIMIT_S)
        listener.close()
    assert not thread.is_alive()


@contextmanager
def serving_folder(folder: Path, **settings: object) -> Iterator[Live]:
    """The same with the engines of a model folder, once they are loaded."""
    with serving(source=FolderSource(folder), **settings) as live:
        wait_until(lambda: live.client.get("/readyz").status_code == 200)
        yield live


def two_variants() -> tuple[VariantSet[Detector], FakeEngine, FakeEngine]:
    fp32, int8 = FakeEngine(FP32_RAW), FakeEngine(INT8_RAW)
    return variants_of({"fp32": fp32, "int8": int8}), fp32, int8


@contextmanager
def stalled(
    engine: FakeEngine, live: Live, path: str = "/v1/detect"
) -> Iterator[Future[httpx.Response]]:
    """One request is in the engine, which holds it until the block ends or the gate is set."""
    with ThreadPoolExecutor(1) as pool:
        engine.gate.clear()
        engine.entered.clear()
        try:
            request = pool.submit(post, live.client, jpeg(), path)
            assert engine.entered.wait(WAIT_LIMIT_S)
            yield request
        finally:
            engine.gate.set()


def post(client: httpx.Client, data: bytes, path: str = "/v1/detect", **options) -> httpx.Response:
    headers = {"Content-Type": "image/jpeg"} | options.pop("headers", {})
    return client.post(path, content=data, headers=headers, **options)


def assert_problem(response: httpx.Response, status: int, kind: str | None = None) -> dict:
    """The problem document of the response; `kind` is the end of its type."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["instance"] == f"urn:qyolo:request:{response.headers['x-request-id']}"
    if kind is not None:
        assert problem["type"] == f"urn:qyolo:problem:{kind}"
    return problem


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(client: httpx.Client) -> Samples:
    """Everything that /metrics shows, by name and labels."""
    text = client.get("/metrics").text
    return {
        (each.name, frozenset(each.labels.items())): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def sample(found: Samples, name: str, **labels: str) -> float:
    """The value of the one series with these labels, of whatever model unless one is named."""
    values = [
        value
        for (each, has), value in found.items()
        if each == name
        and {label for label in has if label[0] != "model" or "model" in labels} == labels.items()
    ]
    assert len(values) <= 1
    return values[0] if values else 0.0
