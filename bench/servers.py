"""qyolo beside other servers: one engine file, one image, one machine, measured alternately.

    .venv/bin/python bench/servers.py [MODEL_FOLDER] [--variant int8] [--seconds 5] [--rounds 3]

The peers are a plain FastAPI handler, with one and with two workers, LitServe, BentoML, and Triton
with its Python backend, with one and with two instances; the last three each pinned in an
environment of its own under runs/. They wrap qyolo's own detector, so decoding, letterbox, engine
and NMS are the same and only the servers differ. Each of two workers or instances runs on half of
the cores. The picture (640x480) is sent as a tensor of Triton's binary protocol, and to the others
as a multipart form, from 1, 16 and 64 clients in a closed loop.

The peers let every request wait, and so does qyolo with a QYOLO_CAPACITY of twice the most clients.
The rows with "max 100 ms" refuse a request that would wait longer (429): qyolo, and the
FastAPI handler with a semaphore. A client that is refused sends its next request a second later,
as Retry-After asks. Prints milliseconds of the requests that were answered, and how many a second.

Roboflow's inference loads models from its own registry only, so it cannot serve this engine.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Final

from bench.command_line import print_header, print_row, server_parser
from bench.load import Responses, closed_loop, post, post_form
from bench.overhead import jpeg
from bench.peers.environments import PEERS, environment
from bench.serving import free_port, model_folder, serve, wait_until

CLIENTS: Final = (1, 16, 64)
MAX_WAIT_MS: Final = 100
BOUNDED: Final = f"max {MAX_WAIT_MS} ms"
# Settings of qyolo by the suffix of its rows.
BOUNDS: Final[Mapping[str, Mapping[str, int]]] = {
    "": {"QYOLO_CAPACITY": 2 * max(CLIENTS)},
    f", {BOUNDED}": {"QYOLO_MAX_WAIT_MS": MAX_WAIT_MS},
}
MODES: Final[Mapping[str, Sequence[str]]] = {
    "qyolo": (),
    "qyolo --throughput": ("--throughput",),
}
SHARED_PACKAGES: Final = ("numpy", "openvino", "pillow", "pydantic", "simplejpeg", "kornia-rs")
LITSERVE: Final = "litserve==0.2.19"
BENTOML: Final = "bentoml==1.4.40"
TRITON: Final = "nvidia-pytriton==0.7.0"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server: its command, in which PORT stands for its port, and a request by row."""

    command: Sequence[str]
    requests: Mapping[str, bytes]
    workers: int = 1  # processes that have an engine


def main() -> None:
    parser = server_parser(__doc__, seconds=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    picture = jpeg((640, 480))
    to_qyolo = post_form(f"/v1/models/{arguments.variant}/detect", picture)
    with model_folder(arguments.folder) as folder, ExitStack() as stack:
        servers = {}
        for suffix, settings in BOUNDS.items():
            for mode, options in MODES.items():
                variables = {"QYOLO_LOG_LEVEL": "warning", **settings}
                server = serve(folder, *options, environment=variables)
                servers[mode + suffix] = (stack.enter_context(server).port, to_qyolo)
        for peer in peers(picture):
            port = stack.enter_context(running_peer(peer, folder, arguments.variant))
            servers |= {name: (port, request) for name, request in peer.requests.items()}
        measured = {(name, clients): Responses() for name in servers for clients in CLIENTS}
        for _ in range(arguments.rounds):
            for clients in CLIENTS:
                for name, (port, request) in servers.items():
                    responses = closed_loop(port, [request], clients, arguments.seconds, 1.0)
                    measured[name, clients].extend(responses)
    columns = ((f"{clients}: p50 ms", "p99 ms", "images/s") for clients in CLIENTS)
    print_header("", *chain.from_iterable(columns))
    for name in servers:
        cells = (_cells(measured[name, clients]) for clients in CLIENTS)
        print_row(name, *chain.from_iterable(cells))


def _cells(measured: Responses) -> tuple[str, ...]:
    others = [f"{count} x {status}" for status, count in measured.counts.items() if status != 200]
    numbers = (measured.percentile(50), measured.percentile(99), measured.per_second)
    p50, p99, rate = (f"{each:.1f}" for each in numbers)
    return p50, p99, " ".join((rate, *(f"({other})" for other in others)))


def peers(picture: bytes) -> Iterator[Peer]:
    """The other servers, installed."""
    pins = [f"{name}=={version(name)}" for name in SHARED_PACKAGES]
    form = post_form("/detect", picture)
    bounded = post_form("/detect/bounded", picture)
    uvicorn = [
        *(sys.executable, "-m", "uvicorn", "bench.peers.fastapi_server:app"),
        *("--port", "PORT", "--log-level", "warning"),
    ]
    yield Peer(uvicorn, {"FastAPI": form, f"FastAPI, {BOUNDED}": bounded})
    yield Peer([*uvicorn, "--workers", "2"], {"FastAPI, 2 workers": form}, 2)
    litserve = environment("litserve", LITSERVE, *pins, "python-multipart")
    yield Peer([litserve, str(PEERS / "litserve_server.py"), "PORT"], {"LitServe": form})
    bentoml = Path(environment("bentoml", BENTOML, *pins)).with_name("bentoml")
    service = ("serve", "bentoml_server:Detect", "--port", "PORT", "--working-dir", str(PEERS))
    yield Peer([str(bentoml), *service], {"BentoML": form})
    # pytriton itself is not used, and needs an older NumPy.
    home = str(Path(environment("triton", "--no-deps", TRITON)).parents[1].resolve())
    triton = [sys.executable, str(PEERS / "triton_server.py"), "PORT"]
    tensor = post_tensor(picture)
    yield Peer([*triton, "1", home], {"Triton": tensor})
    yield Peer([*triton, "2", home], {"Triton, 2 instances": tensor}, 2)


def post_tensor(picture: bytes) -> bytes:
    """A request of Triton's binary protocol: JSON that describes a tensor, then its bytes."""
    size = {"binary_data_size": len(picture)}
    tensor = {"name": "image", "shape": [len(picture)], "datatype": "UINT8", "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    path = "/v2/models/detector/infer"
    return post(path, "application/octet-stream", head + picture, length)


@contextmanager
def running_peer(peer: Peer, folder: Path, variant: str) -> Iterator[int]:
    """The port of a peer that answers; its process group ends with the block."""
    port = free_port()
    process = subprocess.Popen(
        [part.replace("PORT", str(port)) for part in peer.command],
        env=os.environ
        | {"PYTHONPATH": str(PEERS.parents[1]), "BENTOML_DO_NOT_TRACK": "1"}
        | {"MODEL_FOLDER": str(folder.resolve()), "VARIANT": variant}
        | {"WORKERS": str(peer.workers), "MAX_WAIT_MS": str(MAX_WAIT_MS)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    request = next(iter(peer.requests.values()))
    try:
        wait_until(lambda: _answers(port, request), process, " ".join(peer.command))
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _answers(port: int, request: bytes) -> bool:
    try:
        return closed_loop(port, [request], 1, 0.01, 0.01).counts[200] > 0
    except (OSError, EOFError):  # it does not listen yet
        return False


if __name__ == "__main__":
    main()
