"""A real uvicorn on a real socket."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from service.app import create_app, local_backend
from service.inference.detector import Detector
from service.inference.variants import VariantSet
from service.lifecycle import FolderSource, ModelSource
from service.observability.tracing import Tracing
from service.settings import Settings
from service.transport.config import server_config
from service.transport.listener import open_listener
from tests.fakes import PATIENCE_S, FakeEngine, variants_of, yolov5_raw

# In a 200x100 image: scale 0.32, 16 rows of padding above; fp32 sees a person, a dog below the
# person's score, a duplicate of the person, and something too faint.
FP32_RAW = yolov5_raw(
    [
        (12.0, 24.0, 8.0, 8.0, 0.6, 2),
        (32.0, 32.0, 16.0, 8.0, 0.9, 0),
        (32.5, 32.0, 16.0, 8.0, 0.8, 0),
        (50.0, 40.0, 8.0, 8.0, 0.1, 1),
    ]
)
# int8 sees the person a little smaller, no dog, and a traffic light.
INT8_RAW = yolov5_raw([(32.0, 32.0, 15.2, 8.0, 0.85, 0), (50.0, 40.0, 8.0, 8.0, 0.5, 1)])


@dataclass(frozen=True)
class Live:
    """A running server; `exit` asks it to stop as SIGTERM does, and returns once it has."""

    client: httpx.Client
    port: int
    server: uvicorn.Server
    thread: threading.Thread
    failures: list[str]

    def exit(self) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@contextmanager
def serving(
    variants: VariantSet[Detector] | None = None,
    source: ModelSource | None = None,
    traces: Tracing | None = None,
    **settings: object,
) -> Iterator[Live]:
    """Serve the given variants (or whatever the source's folder holds) until the block ends."""
    failures: list[str] = []
    # Room for every request that tests send at once, unless they are about the room.
    chosen = Settings.model_validate({"capacity": 32, "port": 0} | settings)
    backend = None if variants is None else local_backend(chosen, lambda *_: variants)
    app = create_app(
        chosen, source or FolderSource(Path()), failures.append, backend, traces=traces
    )
    server = uvicorn.Server(server_config(app, chosen))
    listener = open_listener(chosen)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        wait_until(lambda: server.started)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            live = Live(client, port, server, thread, failures)
            if source is None:
                wait_until(lambda: client.get("/readyz").status_code == 200)
            yield live
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
    assert not thread.is_alive()


def two_variants() -> tuple[VariantSet[Detector], FakeEngine, FakeEngine]:
    fp32, int8 = FakeEngine(FP32_RAW), FakeEngine(INT8_RAW)
    return variants_of({"fp32": fp32, "int8": int8}), fp32, int8


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
