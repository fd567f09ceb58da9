"""qyolo beside other servers: one engine file, one image, one machine, measured alternately.

    .venv/bin/python bench/servers.py [MODEL_FOLDER] [--variant int8] [--seconds 5] [--rounds 3]

The peers are a plain FastAPI handler, LitServe and BentoML, the last two each pinned in an
environment of its own under runs/. They wrap qyolo's own detector, so decoding, letterbox, engine
and NMS are the same and only the servers differ. All get the picture (640x480) as a multipart form,
from 1, 16 and 64 clients in a closed loop. qyolo's QYOLO_CAPACITY is raised to twice the most
clients, because the peers refuse no request. Prints milliseconds and images a second.

Roboflow's inference loads models from its own registry only, so it cannot serve this engine.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Final

from bench.command_line import print_header, print_row, server_parser
from bench.load import Responses, closed_loop, post_form
from bench.overhead import jpeg
from bench.peers.environments import PEERS, environment
from bench.serving import free_port, model_folder, serve, wait_until

CLIENTS: Final = (1, 16, 64)
SHARED_PACKAGES: Final = ("numpy", "openvino", "pillow", "pydantic", "simplejpeg", "kornia-rs")
LITSERVE: Final = "litserve==0.2.19"
BENTOML: Final = "bentoml==1.4.40"


def main() -> None:
    parser = server_parser(__doc__, seconds=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    picture = jpeg((640, 480))
    to_qyolo = post_form(f"/v1/models/{arguments.variant}/detect", picture)
    to_peer = post_form("/detect", picture)
    with model_folder(arguments.folder) as folder, ExitStack() as stack:
        settings = {"QYOLO_CAPACITY": 2 * max(CLIENTS), "QYOLO_LOG_LEVEL": "warning"}
        servers = {}
        for name, options in (("qyolo", ()), ("qyolo --throughput", ("--throughput",))):
            server = serve(folder, *options, environment=settings)
            servers[name] = (stack.enter_context(server).port, to_qyolo)
        for name, command in peer_commands().items():
            peer = running_peer(name, command, to_peer, folder, arguments.variant)
            servers[name] = (stack.enter_context(peer), to_peer)
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
    failed = f" ({measured.failed} failed)" if measured.failed else ""
    numbers = (measured.percentile(50), measured.percentile(99), measured.per_second)
    p50, p99, rate = (f"{each:.1f}" for each in numbers)
    return p50, p99, rate + failed


def peer_commands() -> dict[str, list[str]]:
    """The command of each peer; PORT stands for its port."""
    pins = [f"{name}=={version(name)}" for name in SHARED_PACKAGES]
    litserve = environment("litserve", LITSERVE, *pins, "python-multipart")
    bentoml = str(Path(environment("bentoml", BENTOML, *pins)).with_name("bentoml"))
    return {
        "FastAPI": [sys.executable, str(PEERS / "fastapi_server.py"), "PORT"],
        "LitServe": [litserve, str(PEERS / "litserve_server.py"), "PORT"],
        "BentoML": [
            *(bentoml, "serve", "bentoml_server:Detect", "--port", "PORT"),
            *("--working-dir", str(PEERS)),
        ],
    }


@contextmanager
def running_peer(
    name: str, command: list[str], request: bytes, folder: Path, variant: str
) -> Iterator[int]:
    """The port of a peer that answers; its process group ends with the block."""
    port = free_port()
    process = subprocess.Popen(
        [part.replace("PORT", str(port)) for part in command],
        env=os.environ
        | {"PYTHONPATH": str(PEERS.parents[1]), "BENTOML_DO_NOT_TRACK": "1"}
        | {"MODEL_FOLDER": str(folder.resolve()), "VARIANT": variant},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: _answers(port, request), process, " ".join((name, *command)))
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
