"""qyolo beside other servers: one engine file, one picture, one machine, in turns.

    .venv/bin/python bench/servers.py [MODEL_FOLDER] [--variant int8]

Each peer wraps qyolo's own detector, so that decoding, letterbox, engine and NMS are the same and
the servers are what differs: a plain FastAPI handler, LitServe and BentoML, each pinned in a venv
of its own under runs/. All get the picture as a multipart form. qyolo's house is opened as wide as
theirs (QYOLO_CAPACITY), since they turn nobody away. Roboflow's inference loads models from its own
registry only, so it cannot be given this engine.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import load
import overhead
import peers
import serving

CLIENTS = (1, 16, 64)
OURS = ("numpy", "openvino", "pillow", "pydantic", "simplejpeg", "kornia-rs")
LITSERVE = "litserve==0.2.19"
BENTOML = "bentoml==1.4.40"
PATIENCE_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: the detector in the box")
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    picture = overhead.jpeg((640, 480))
    ours = load.Request.multipart(f"/v1/models/{arguments.variant}/detect", picture)
    theirs = load.Request.multipart("/detect", picture)
    with serving.model_folder(arguments.folder) as folder, ExitStack() as stack:
        os.environ |= {"QYOLO_CAPACITY": str(2 * max(CLIENTS)), "QYOLO_LOG_LEVEL": "warning"}
        running = {
            name: (stack.enter_context(serving.server(folder, *options)), ours)
            for name, options in (("qyolo", ()), ("qyolo --throughput", ("--throughput",)))
        }
        for name, command in peers_of(folder, arguments.variant).items():
            running[name] = (stack.enter_context(started(name, command, theirs)), theirs)
        seen = {(name, clients): load.Seen() for name in running for clients in CLIENTS}
        for _ in range(arguments.rounds):
            for clients in CLIENTS:
                for name, (port, request) in running.items():
                    turn = load.closed_loop(port, [request], clients, arguments.seconds, 1.0)
                    seen[name, clients].extend(turn)
    print("| | " + " | ".join(f"{c}: p50 ms | p99 ms | images/s" for c in CLIENTS) + " |")
    print("|---" * (1 + 3 * len(CLIENTS)) + "|")
    for name in running:
        cells = [_cell(seen[name, clients]) for clients in CLIENTS]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _cell(seen: load.Seen) -> str:
    failed = seen.counts.total() - seen.counts[200]
    told = f" ({failed} failed)" if failed else ""
    p50, p99 = seen.percentile(50), seen.percentile(99)
    return f"{p50:.1f} | {p99:.1f} | {seen.per_second:.1f}{told}"


def peers_of(folder: Path, variant: str) -> dict[str, list[str]]:
    """The command of each, up to its port."""
    pins = [f"{name}=={version(name)}" for name in OURS]
    litserve = peers.environment("litserve", LITSERVE, *pins, "python-multipart")
    bentoml = Path(peers.environment("bentoml", BENTOML, *pins)).with_name("bentoml")
    here = Path(__file__).parent
    os.environ |= {"MODEL_FOLDER": str(folder.resolve()), "VARIANT": variant}
    return {
        "FastAPI": [sys.executable, str(here / "peer_fastapi.py"), "PORT"],
        "LitServe": [litserve, str(here / "peer_litserve.py"), "PORT"],
        "BentoML": [
            *(str(bentoml), "serve", "peer_bentoml:Detect", "--port", "PORT"),
            *("--working-dir", str(here)),
        ],
    }


@contextmanager
def started(name: str, command: list[str], request: load.Request) -> Iterator[int]:
    """The port of a peer that answers; it and what it started are ended with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [part.replace("PORT", str(port)) for part in command],
        env=os.environ | {"PYTHONPATH": root, "BENTOML_DO_NOT_TRACK": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _answers(port, request):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not answer: {' '.join(command)}")
            time.sleep(0.5)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _answers(port: int, request: load.Request) -> bool:
    try:
        return load.closed_loop(port, [request], 1, 0.01, 0.01).counts[200] > 0
    except (OSError, EOFError):  # not there yet
        return False


if __name__ == "__main__":
    sys.exit(main())
