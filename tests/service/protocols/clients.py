"""Third-party clients, each in the environment that make installed for it."""

import json
import sys
from pathlib import Path

import pytest

from tests.processes import run
from tests.waiting import WAIT_LIMIT_S

HOMES = Path(sys.prefix) / "clients"
SCRIPTS = Path(__file__).parent / "scripts"


def interpreter(client: str) -> str:
    """The client's own Python; skips the test where it is not installed."""
    home = HOMES / client
    if not (home / ".installed").exists():
        pytest.skip(
            f"{client} is not installed: make {HOMES.parent.name}/clients/{client}/.installed"
        )
    return str(home / "bin" / "python")


def say(client: str, script: str, *arguments: object) -> dict:
    """What a script that uses the client prints, which is JSON."""
    command = (interpreter(client), SCRIPTS / script, *arguments)
    return json.loads(run(*command, timeout=6 * WAIT_LIMIT_S))
