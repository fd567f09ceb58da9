"""Nothing that runs here reports to the makers of the runtimes."""

import subprocess
import sys

import pytest

LOOK = """
import os, sys
print(os.environ["ORT_DISABLE_TELEMETRY"], sys.modules.get("openvino_telemetry"))
from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""


@pytest.mark.parametrize(
    "module",
    ["quantizer.build", "quantizer.compile.openvino_builder", "service.engines.openvino_engine"],
)
def test_the_runtimes_are_imported_without_their_telemetry(module):
    ran = subprocess.run(
        [sys.executable, "-c", f"import {module}\n{LOOK}"], capture_output=True, text=True, env={}
    )
    assert ran.stdout.splitlines() == ["1 None", "openvino.tools.ovc.telemetry_stub"], ran.stderr
