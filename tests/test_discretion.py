"""Entry points turn the runtimes' telemetry off before they import a runtime; imports do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.qyolo.commands import qyolo, running
from tests.tiny_models import save_tiny

# Python runs it in every process: it notes whether telemetry is off when a runtime is looked for.
WATCH = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("onnxruntime", "openvino"):
            environment = os.environ.get("ORT_DISABLE_TELEMETRY") == "1"
            module = sys.modules.get("openvino_telemetry", "absent") is None
            with open(os.environ["WATCHED"], "a") as file:
                print(os.getpid(), name, environment and module, file=file)

sys.meta_path.insert(0, Watch())
"""
PLAIN_IMPORT = """
import os, sys
before = dict(os.environ)
import quantizer.build, quantizer.compile.openvino_builder, service.app
import service.engines.openvino_engine, service.engines.onnxruntime_engine
assert os.environ == before
assert sys.modules.get("openvino_telemetry", "absent") is not None
"""
STUB = """
from qyolo.process import set_up_process
set_up_process()
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
"""


@pytest.fixture
def watched(tmp_path):
    """Settings that make every process write to a file, and what the file says then."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "log"
    search = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": search, "WATCHED": log, "QYOLO_CACHE_DIR": tmp_path / "cache"}

    def read() -> list[list[str]]:
        return [line.split() for line in log.read_text().splitlines()]

    return settings, read


def assert_off(lines: list[list[str]], processes: int) -> None:
    assert {line[1] for line in lines} == {"onnxruntime", "openvino"}
    assert {line[2] for line in lines} == {"True"}
    assert len({line[0] for line in lines}) == processes


def build_of(folder: Path, photos: Path) -> tuple[object, ...]:
    return (save_tiny(folder, "yolov5"), "--calibration", photos, "--size", 64)


def test_telemetry_is_off_in_a_build(watched, photos, tmp_path):
    settings, read = watched
    assert qyolo("build", *build_of(tmp_path, photos), **settings).code == 0
    assert_off(read(), processes=1)


def test_telemetry_is_off_in_a_server_and_in_its_build_process(watched, photos, tmp_path):
    settings, read = watched
    with running("up", *build_of(tmp_path, photos), **settings) as server:
        server.wait_until_ready()
    assert_off(read(), processes=2)


@pytest.mark.parametrize("code", [PLAIN_IMPORT, STUB], ids=["an import", "a set-up process"])
def test_only_a_process_that_is_set_up_differs(code):
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
