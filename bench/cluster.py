"""What a second replica brings: a Ray cluster of this machine with one replica, then with two.

    .venv/bin/python bench/cluster.py [MODEL_FOLDER] [--clients 8] [--rounds 2]

Two nodes and a head; each replica has one CPU by Ray's account, and so one thread. The same clients
post a JPEG of 640x480 to either deployment in turns, and to a plain server on one thread beside it.
The machine runs clients, proxies, front and replicas at once: with two cores they share two cores,
and the ratio says what this machine gives, not what two machines would.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import load
import overhead
import serving
from ray.cluster_utils import Cluster

NODES = 2
ROOM = 2  # CPUs of a node by Ray's account: a replica, and one more while it is replaced


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: the detector in the box")
    parser.add_argument("--clients", type=int, default=8, help="8 is what one replica takes")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    request = load.Request.raw("/v1/detect", overhead.jpeg((640, 480)))
    os.environ |= {
        "QYOLO_CAPACITY": str(arguments.clients),
        "QYOLO_LOG_LEVEL": "warning",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    seen = {name: load.Seen() for name in ("plain server", "1 replica", "2 replicas")}
    with (
        serving.model_folder(arguments.folder) as folder,
        serving.server(folder, "--threads", "1") as plain,
        cluster() as (address, caches),
    ):

        def turn(name: str, port: int) -> None:
            seen[name].extend(
                load.closed_loop(port, [request], arguments.clients, arguments.seconds, 1.0)
            )

        port = free_port()
        for _ in range(arguments.rounds):
            turn("plain server", plain)
            for replicas, name in enumerate(("1 replica", "2 replicas"), start=1):
                deploy(folder, address, port, replicas, caches)
                turn(name, port)
    print("| | images/s | p50 ms | p99 ms | failed |")
    print("|---|---|---|---|---|")
    for name, turns in seen.items():
        failed = turns.counts.total() - turns.counts[200]
        p50, p99 = turns.percentile(50), turns.percentile(99)
        print(f"| {name} | {turns.per_second:.1f} | {p50:.1f} | {p99:.1f} | {failed} |")
    ratio = seen["2 replicas"].per_second / seen["1 replica"].per_second
    print(f"\ntwo replicas over one: {ratio:.2f} on {os.cpu_count()} cores")


@contextmanager
def cluster() -> Iterator[tuple[str, Path]]:
    """Its address, and the folder in which each node has its cache."""
    scratch = Path(tempfile.mkdtemp(prefix="qyolo"))  # a short path: Ray's sockets lie in it
    nodes = [{"env_vars": {"QYOLO_CACHE_DIR": str(scratch / str(n))}} for n in range(NODES + 1)]
    head = nodes[0] | {"num_cpus": 0, "include_dashboard": False}
    os.environ["RAY_TMPDIR"] = str(scratch)
    running = Cluster(initialize_head=True, head_node_args=head)
    try:
        for node in nodes[1:]:
            running.add_node(num_cpus=ROOM, **node)
        yield running.address, scratch
    finally:
        running.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


def deploy(folder: Path, address: str, port: int, replicas: int, caches: Path) -> None:
    command = [sys.executable, "-m", "qyolo", "cluster", str(folder), "--address", address]
    options = ["--port", str(port), "--min", str(replicas), "--fronts", "1"]
    subprocess.run(
        [*command, *options],
        check=True,
        env=os.environ | {"QYOLO_CACHE_DIR": str(caches / "0")},
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
