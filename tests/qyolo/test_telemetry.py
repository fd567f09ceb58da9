"""Entry points turn the runtimes' telemetry off before they import a runtime; imports do not."""

import os

import pytest

from tests.processes import run_python
from tests.qyolo.commands import qyolo, running

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


@pytest.mark.parametrize(("command", "processes"), [("build", 1), ("up", 2)])
def test_telemetry_is_off_when_a_runtime_is_imported(command, processes, tiny_build, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    log, search = tmp_path / "log", [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    settings = {"PYTHONPATH": os.pathsep.join(search), "WATCHED": log}
    settings |= {"QYOLO_CACHE_DIR": tmp_path / "cache"}
    if command == "build":
        assert qyolo("build", *tiny_build, **settings).code == 0
    else:
        with running("up", *tiny_build, **settings) as server:
            server.wait_until_ready()
    lines = [line.split() for line in log.read_text().splitlines()]
    pids, runtimes, off = map(set, zip(*lines, strict=True))
    assert (len(pids), runtimes, off) == (processes, {"onnxruntime", "openvino"}, {"True"})


@pytest.mark.parametrize("code", [PLAIN_IMPORT, STUB], ids=["an import", "a set-up process"])
def test_only_a_process_that_is_set_up_differs(code):
    run_python(code)
