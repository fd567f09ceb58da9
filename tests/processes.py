"""Run a program that must succeed."""

import subprocess
import sys
from typing import Any


def run(*command: object, **options: Any) -> str:
    """What it prints; `options` are those of subprocess.run."""
    ran = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def run_python(code: str, *arguments: object, **options: Any) -> str:
    """The same for code in an interpreter of its own."""
    return run(sys.executable, "-c", code, *arguments, **options)
