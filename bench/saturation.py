"""How much of the engine's best throughput arrives over HTTP, and what twice that load does.

    .venv/bin/python bench/saturation.py [MODEL_FOLDER | --architecture yolov5s] [--variant int8]

The engine alone: OpenVINO's benchmark_app with its throughput hint, on the same file and cores.
The server: `--throughput`, clients that ask again at once. Then the default server under requests
that arrive by chance at twice the rate that saturates it: those that are answered, and those that
are not. The clients run on the same cores.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import load
import onnx
import overhead
import serving
from architectures import ARCHITECTURES

from service.engines.cpu import usable_threads
from service.inference.pipeline import room
from service.manifest import read_manifest

BUSY = 429


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: the detector in the box")
    parser.add_argument("--architecture", help="one of architectures.py, with random weights")
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--seconds", type=int, default=15)
    arguments = parser.parse_args()
    seconds, cores = arguments.seconds, usable_threads()
    requests = [
        load.Request.raw(f"/v1/models/{arguments.variant}/detect", overhead.jpeg((640, 480)))
    ]
    with ExitStack() as stack:
        if arguments.architecture is None:
            folder = stack.enter_context(serving.model_folder(arguments.folder))
        else:
            folder = stack.enter_context(random_folder(arguments.architecture))
        alone = engine_alone(folder, arguments.variant, seconds)
        print(f"engine alone: {alone:.1f} images/s")
        with serving.server(folder, "--throughput") as port:
            clients = room(cores, cores)  # as many as the house holds: it is never empty
            seen = load.closed_loop(port, requests, clients, seconds)
            told = f"{seen.per_second:.1f} images/s, {seen.per_second / alone:.1%} of it"
            print(f"server, --throughput, {clients} clients: {told}")
        with serving.server(folder) as port:
            calm = load.closed_loop(port, requests, 1, seconds)
            clients = room(1, cores)
            full = load.closed_loop(port, requests, clients, seconds)
            stress = load.open_loop(port, requests, 2 * full.per_second, seconds)
    print(
        f"default server, one client: p50 {calm.percentile(50):.1f} ms, "
        f"p99 {calm.percentile(99):.1f} ms\n"
        f"{clients} clients: {full.per_second:.1f} images/s\n"
        f"{2 * full.per_second:.0f} requests/s: {stress.per_second:.1f} images/s, "
        f"p99 {stress.percentile(99):.1f} ms "
        f"({stress.percentile(99) / calm.percentile(99):.2f} times one client's), "
        f"{stress.counts[BUSY]} of {stress.counts.total()} answered 429 after "
        f"p50 {stress.percentile(50, BUSY):.1f} ms, p99 {stress.percentile(99, BUSY):.1f} ms"
    )


@contextmanager
def random_folder(architecture: str) -> Iterator[Path]:
    """One of architectures.py with random weights, every layer that can be in int8."""
    with TemporaryDirectory() as scratch:
        model, folder = Path(scratch) / f"{architecture}.onnx", Path(scratch) / "model"
        onnx.save(ARCHITECTURES[architecture](), model)
        command = [sys.executable, "-m", "qyolo", "build", str(model), "--out", str(folder)]
        subprocess.run([*command, "--min-sqnr", "0"], check=True, stdout=subprocess.DEVNULL)
        yield folder


def engine_alone(folder: Path, variant: str, seconds: int) -> float:
    """Images a second by benchmark_app."""
    engine = read_manifest(folder).variants[variant]
    command = [
        str(Path(sys.executable).with_name("benchmark_app")),
        *("-m", str(folder / engine.model), "-d", "CPU", "-hint", "throughput"),
        *("-infer_precision", engine.float_type, "-t", str(seconds)),
    ]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(re.findall(r"Throughput:\s+([\d.]+) FPS", told)[0])


if __name__ == "__main__":
    main()
