"""Other quantizers, each pinned in a venv of its own under runs/, and measured processes."""

import json
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

RUNS: Final = Path("runs")
NNCF: Final = "nncf==3.4.0"
# Runs its arguments and tells, last, the peak of their memory in KiB.
PEAK: Final = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that succeeded: its last line as JSON if it is that, seconds, peak memory."""

    said: Any
    seconds: float
    peak_mib: float


def nncf(*arguments: str) -> Finished:
    """Run bench/nncf_quantize.py beside NNCF and the OpenVINO that is installed here."""
    python = environment(
        "nncf", NNCF, f"openvino=={version('openvino')}", f"numpy=={version('numpy')}"
    )
    return measured([python, _beside("nncf_quantize.py"), *arguments])


def onnxruntime(*arguments: str) -> Finished:
    """Run bench/ort_quantize.py beside the ONNX Runtime that is installed here."""
    packages = ("onnxruntime", "onnx", "numpy")
    python = environment("onnxruntime", *(f"{name}=={version(name)}" for name in packages), "sympy")
    return measured([python, _beside("ort_quantize.py"), *arguments])


def qyolo(*arguments: str) -> Finished:
    """Run the command line of this checkout."""
    return measured([sys.executable, "-m", "qyolo", *arguments])


def measured(command: Sequence[str]) -> Finished:
    """Run to the end; raises CalledProcessError.

    By way of a small process, since Linux counts what its parent held before as a process's peak.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-S", "-c", PEAK, *command], stdout=subprocess.PIPE, text=True, check=True
    )
    *lines, peak = done.stdout.splitlines()
    said = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
    return Finished(said, time.perf_counter() - start, int(peak) / 1024)


def _beside(script: str) -> str:
    return str(Path(__file__).with_name(script))


def environment(name: str, *packages: str) -> str:
    """The Python of a venv with these packages, made once."""
    home = RUNS / f"{name}-venv"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (home / "ready").touch()
    return str(python)
