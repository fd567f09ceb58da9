"""Entry points turn the runtimes' telemetry off before they import a runtime; imports do not."""

import os
from pathlib import Path

import pytest

from tests.processes import run_python
from tests.qyolo.commands import environment, running

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
def watched(tmp_path) -> dict[str, object]:
    """The environment of a process that watches its imports."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    search = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": search, "WATCHED": tmp_path / "log"}


def assert_off(log: Path, processes: int) -> None:
    """So many processes have imported both runtimes, each with its telemetry off."""
    lines = [line.split() for line in log.read_text().splitlines()]
    pids, runtimes, off = map(set, zip(*lines, strict=True))
    assert (len(pids), runtimes, off) == (processes, {"onnxruntime", "openvino"}, {"True"})


def test_a_server_and_its_build_import_runtimes_without_telemetry(tiny_build, watched, tmp_path):
    arguments = ("up", *tiny_build, "--runtime", "openvino")
    with running(*arguments, QYOLO_CACHE_DIR=tmp_path / "cache", **watched) as server:
        server.wait_until_ready()
    assert_off(watched["WATCHED"], processes=2)


def test_a_bench_imports_runtimes_without_telemetry(watched):
    run_python("import bench.quantization.calibration, openvino", env=environment(**watched))
    assert_off(watched["WATCHED"], processes=1)


@pytest.mark.parametrize("code", [PLAIN_IMPORT, STUB], ids=["an import", "a set-up process"])
def test_only_a_process_that_is_set_up_differs(code):
    run_python(code)
