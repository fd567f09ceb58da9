"""Pinned virtual environments for the peers, and processes whose time and memory are measured."""

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from zipfile import ZipFile

PEERS: Final = Path(__file__).parent
RUNS: Final = Path("runs")
NNCF: Final = "nncf==3.4.0"
ULTRALYTICS: Final = (
    "ultralytics==8.3.230",
    "torch==2.13.0",
    "torchvision==0.28.0",
    "onnx==1.23.2",
)
# Runs its arguments; the last line that it prints is their peak memory in KiB.
PEAK: Final = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that exited with 0; `output` is its last line if that is JSON."""

    output: Any
    seconds: float
    peak_mib: float


def quantize_nncf(*arguments: str | Path) -> Finished:
    """`quantize.py nncf ARGUMENTS`, with the OpenVINO that is installed here."""
    pins = [f"{name}=={version(name)}" for name in ("openvino", "numpy")]
    return _quantize("nncf", environment("nncf", NNCF, *pins), *arguments)


def quantize_onnxruntime(*arguments: str | Path) -> Finished:
    """`quantize.py onnxruntime ARGUMENTS`, with the ONNX Runtime that is installed here."""
    pins = [f"{name}=={version(name)}" for name in ("onnxruntime", "onnx", "numpy")]
    return _quantize("onnxruntime", environment("onnxruntime", *pins, "sympy"), *arguments)


def _quantize(peer: str, python: str, *arguments: str | Path) -> Finished:
    return measured([python, str(PEERS / "quantize.py"), peer, *map(str, arguments)])


def export_ultralytics(weights: Path, out: Path) -> Path:
    """Export PyTorch weights to ONNX once; loading them runs code that is in them."""
    if not out.exists():
        script, settings = PEERS / "export_ultralytics.py", RUNS / "ultralytics"
        settings.mkdir(parents=True, exist_ok=True)
        # Without asking a server, and without installing what it thinks is missing.
        quiet = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
        subprocess.run(
            [environment("ultralytics", *ULTRALYTICS), script, weights.resolve(), out.resolve()],
            env={**os.environ, **quiet, "YOLO_CONFIG_DIR": str(settings.resolve())},
            check=True,
        )
    return out


def packaged_file(requirement: str, member: str) -> Path:
    """A file of a package of the registry, downloaded and unpacked once; nothing is installed."""
    home = RUNS / "packages" / requirement
    if not (home / member).exists():
        with TemporaryDirectory() as scratch:
            download = ["download", "--quiet", "--no-deps", "--only-binary=:all:", requirement]
            subprocess.run([sys.executable, "-m", "pip", *download, "--dest", scratch], check=True)
            (wheel,) = Path(scratch).iterdir()
            with ZipFile(wheel) as archive:
                archive.extract(member, home)
    return home / member


def save_openvino(model: Path | bytes, out: Path) -> None:
    """Convert an ONNX model."""
    import openvino as ov  # not at the top, before the telemetry is off

    ov.save_model(ov.Core().read_model(model), out, compress_to_fp16=False)


def measured(command: Sequence[str]) -> Finished:
    """Run a command to its end; raises CalledProcessError.

    A small process starts it, because Linux counts the memory of the parent in a child's peak.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-S", "-c", PEAK, *command], stdout=subprocess.PIPE, text=True, check=True
    )
    *lines, peak = done.stdout.splitlines()
    output = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
    return Finished(output, time.perf_counter() - start, int(peak) / 1024)


def environment(name: str, *packages: str) -> str:
    """The Python of a virtual environment with these packages; installed once."""
    home = RUNS / f"{name}-venv"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (home / "ready").touch()
    return str(python)
