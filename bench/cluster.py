"""What a second replica adds: a local Ray cluster with one replica, then with two.

    .venv/bin/python bench/cluster.py [MODEL_FOLDER] [--clients 8] [--seconds 8] [--rounds 2]

The cluster has a head and two nodes; each replica has one CPU by Ray's account, and so one thread.
The same clients post a JPEG of 640x480 in a closed loop to each deployment and to a plain server on
one thread, alternately. Prints images a second, milliseconds and failed requests.

Clients, proxies, ingress and replicas share the cores of this machine, so the ratio is that of this
machine, not of two machines.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ray.cluster_utils import Cluster

from bench.command_line import folder_parser, print_header, print_row
from bench.load import Responses, closed_loop, post_jpeg
from bench.overhead import jpeg
from bench.serving import free_port, model_folder, serve

NODES: Final = 2
NODE_CPUS: Final = 2  # by Ray's account: a replica, and another one while it is replaced


def main() -> None:
    parser = folder_parser(__doc__)
    parser.add_argument("--clients", type=int, default=8, help="default: 8, one replica's capacity")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    request = post_jpeg("/v1/detect", jpeg((640, 480)))
    os.environ |= {
        "QYOLO_CAPACITY": str(arguments.clients),
        "QYOLO_LOG_LEVEL": "warning",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    measured = {name: Responses() for name in ("plain server", "1 replica", "2 replicas")}
    with (
        model_folder(arguments.folder) as folder,
        serve(folder, "--threads", "1") as plain,
        cluster() as (address, caches),
    ):

        def measure(name: str, port: int) -> None:
            clients, seconds = arguments.clients, arguments.seconds
            measured[name].extend(closed_loop(port, [request], clients, seconds, 1.0))

        port = free_port()
        for _ in range(arguments.rounds):
            measure("plain server", plain.port)
            for replicas, name in enumerate(("1 replica", "2 replicas"), start=1):
                deploy(folder, address, port, replicas, caches)
                measure(name, port)
    print_header("", "images/s", "p50 ms", "p99 ms", "failed")
    for name, total in measured.items():
        numbers = (total.per_second, total.percentile(50), total.percentile(99))
        print_row(name, *(f"{number:.1f}" for number in numbers), total.failed)
    ratio = measured["2 replicas"].per_second / measured["1 replica"].per_second
    print(f"\ntwo replicas over one: {ratio:.2f} on {os.cpu_count()} cores")


@contextmanager
def cluster() -> Iterator[tuple[str, Path]]:
    """The cluster's address, and the folder in which each node has its cache."""
    scratch = Path(tempfile.mkdtemp(prefix="qyolo"))  # a short path: Ray's sockets lie in it
    caches = [{"QYOLO_CACHE_DIR": str(scratch / str(number))} for number in range(NODES + 1)]
    head = {"num_cpus": 0, "include_dashboard": False, "env_vars": caches[0]}
    os.environ["RAY_TMPDIR"] = str(scratch)
    running = Cluster(initialize_head=True, head_node_args=head)
    try:
        for cache in caches[1:]:
            running.add_node(num_cpus=NODE_CPUS, env_vars=cache)
        yield running.address, scratch
    finally:
        running.shutdown()  # type: ignore[no-untyped-call]
        shutil.rmtree(scratch, ignore_errors=True)


def deploy(folder: Path, address: str, port: int, replicas: int, caches: Path) -> None:
    command = [sys.executable, "-m", "qyolo", "cluster", str(folder), "--address", address]
    options = ["--port", str(port), "--min", str(replicas), "--fronts", "1"]
    environment = os.environ | {"QYOLO_CACHE_DIR": str(caches / "0")}
    subprocess.run([*command, *options], check=True, env=environment)


if __name__ == "__main__":
    main()
