"""The systemd unit: it is valid and restricted, and names settings that exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import Settings
from tests.deploy.memory import mib, needed_mib

UNIT = Path(__file__).parents[2] / "deploy/systemd/qyolo.service"
TEXT = UNIT.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_it(tmp_path):
    installed = tmp_path / UNIT.name
    program = Path(sys.executable).with_name("qyolo")
    installed.write_text(TEXT.replace("/opt/qyolo/bin/qyolo", str(program)), encoding="utf-8")
    command = ["systemd-analyze", "verify", str(installed)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_unit_may_write_only_to_its_cache():
    assert "DynamicUser=yes\nCacheDirectory=qyolo\n" in TEXT
    assert "ProtectSystem=strict\n" in TEXT
    assert "CapabilityBoundingSet=\n" in TEXT
    assert "NoNewPrivileges=yes\n" in TEXT


def test_the_settings_that_it_names_exist():
    named = set(re.findall(r"QYOLO_(\w+)=", TEXT)) - {"MODEL", "RECIPE", "CACHE_DIR"}
    assert named
    assert named <= {name.upper() for name in Settings.model_fields}


def test_the_unit_waits_longer_than_the_server_drains():
    (timeout_s,) = re.findall(r"TimeoutStopSec=(\d+)", TEXT)
    assert int(timeout_s) > Settings().drain_s


def test_the_memory_is_enough_for_what_the_settings_allow():
    limit = mib(*re.findall(r"MemoryMax=(\w+)", TEXT))
    assert limit >= needed_mib(limit, Settings())
