"""How much of the engine's best throughput is reached over HTTP, and what random load brings.

    .venv/bin/python bench/saturation.py [MODEL_FOLDER | --architecture yolov5s] [--variant int8]

The engine alone is OpenVINO's benchmark_app with its throughput hint, on the same file and cores.
Then `qyolo serve --throughput` with as many clients in a closed loop as keep it busy. Then the
default server: one client, as many as keep it busy (saturation), and open loops (Poisson) at shares
of that rate; responses with status 200 and 429 are counted apart. Prints images a second,
milliseconds, and the server's CPU time for an image. The clients run on the same cores.
"""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import onnx

from bench.command_line import print_header, print_row, server_parser
from bench.load import BUSY, closed_loop, open_loop, post_jpeg
from bench.overhead import jpeg
from bench.serving import built, model_folder, serve
from quantizer.study.networks import ARCHITECTURES
from service.engines.cpu import usable_threads
from service.inference.admission import default_capacity
from service.manifest import read_manifest

SHARES: Final = (0.3, 0.6, 0.8, 1.0, 2.0)
RANKS: Final = (50, 99)
OK: Final = 200


def main() -> None:
    parser = server_parser(__doc__)
    parser.add_argument("--architecture", choices=ARCHITECTURES, help="with random weights")
    parser.add_argument("--seconds", type=int, default=15, help="of each measurement")
    arguments = parser.parse_args()
    requests = [post_jpeg(f"/v1/models/{arguments.variant}/detect", jpeg((640, 480)))]
    with (
        random_folder(arguments.architecture)
        if arguments.architecture
        else model_folder(arguments.folder)
    ) as folder:
        alone = engine_alone(folder, arguments.variant, arguments.seconds)
        print(f"engine alone: {alone:.1f} images/s")
        measure_throughput(folder, requests, arguments.seconds, alone)
        measure_load(folder, requests, arguments.seconds)


def measure_throughput(folder: Path, requests: list[bytes], seconds: int, alone: float) -> None:
    cores = usable_threads()
    clients = default_capacity(cores, cores)
    with serve(folder, "--throughput") as server:
        closed_loop(server.port, requests, clients, 1.0)
        before = server.cpu_seconds()
        responses = closed_loop(server.port, requests, clients, seconds, warm_up=0.0)
        cpu_ms = (server.cpu_seconds() - before) * 1000 / responses.counts[OK]
    print(
        f"server, --throughput, {clients} clients: {responses.per_second:.1f} images/s, "
        f"{responses.per_second / alone:.1%} of the engine alone, {cpu_ms:.1f} ms of CPU an image"
    )


def measure_load(folder: Path, requests: list[bytes], seconds: int) -> None:
    clients = default_capacity(1, usable_threads())
    with serve(folder) as server:
        one = closed_loop(server.port, requests, 1, seconds)
        full = closed_loop(server.port, requests, clients, seconds).per_second
        print(
            "default server, one client: "
            f"p50 {one.percentile(50):.1f} ms, p99 {one.percentile(99):.1f} ms\n"
            f"{clients} clients, saturation: {full:.1f} images/s, {1000 / full:.1f} ms an image\n"
        )
        columns = ("load", "requests/s", "images/s", "of saturation", "refused")
        print_header(*columns, "p50 ms", "p99 ms", "429: p50 ms", "p99 ms")
        for share in SHARES:
            responses = open_loop(server.port, requests, share * full, seconds)
            good, refused = responses.per_second, responses.counts[BUSY]
            times = (responses.percentile(rank, of) for of in (OK, BUSY) for rank in RANKS)
            print_row(
                *(f"{share:.0%}", f"{share * full:.0f}", f"{good:.1f}", f"{good / full:.1%}"),
                f"{refused / responses.counts.total():.2%}",
                *(f"{ms:.1f}" for ms in times),
            )
            time.sleep(1.0)


@contextmanager
def random_folder(architecture: str) -> Iterator[Path]:
    """The model folder of an architecture with random weights and no float layers."""
    with TemporaryDirectory() as scratch:
        model = Path(scratch) / f"{architecture}.onnx"
        onnx.save(ARCHITECTURES[architecture](), model)
        with built(model, "--min-sqnr", "0") as folder:
            yield folder


def engine_alone(folder: Path, variant: str, seconds: int) -> float:
    """Images a second by benchmark_app."""
    engine = read_manifest(folder).variants[variant]
    command = [
        str(Path(sys.executable).with_name("benchmark_app")),
        *("-m", str(folder / engine.model), "-d", "CPU", "-hint", "throughput"),
        *("-infer_precision", engine.float_type, "-t", str(seconds)),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(re.findall(r"Throughput:\s+([\d.]+) FPS", output)[0])


if __name__ == "__main__":
    main()
