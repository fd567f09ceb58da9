"""Our uses of TensorRT under mypy, against types that are generated from the real bindings.

They cover what no test runs without a driver. What the bindings do not tell, such as that a buffer
has bytes, is left out: names and numbers of arguments are compared.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = (
    "service/engines/tensorrt_engine.py",
    "service/engines/tensorrt_library.py",
    "quantizer/compile/tensorrt_builder.py",
)
WRONG = """
import tensorrt_rtx_bindings as trt
def use(config: trt.IBuilderConfig, context: trt.IExecutionContext) -> None:
    config.profiling_verbosityy
    context.execute_async_v3()
"""


def without_invalid_lines(text: str) -> str:
    """stubgen writes a few signatures that are no Python."""
    lines = text.splitlines()
    while True:
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as exc:
            lines[(exc.lineno or 1) - 1] = ""
        else:
            return "\n".join(lines)


@pytest.fixture(scope="module")
def complaints(compiler, tmp_path_factory) -> list[str]:
    """What mypy says about names and arguments in our modules, and in one with two mistakes."""
    folder = tmp_path_factory.mktemp("types")
    stubgen = "from mypy.stubgen import main; main()"
    module = "tensorrt_rtx_bindings.tensorrt_rtx"
    subprocess.run(
        [sys.executable, "-c", stubgen, "-m", module, "--inspect-mode", "-o", folder],
        check=True,
        capture_output=True,
    )
    package = folder / "tensorrt_rtx_bindings"
    written = (package / "tensorrt_rtx.pyi").read_text()
    (package / "__init__.pyi").write_text(without_invalid_lines(written))
    (folder / "wrong.py").write_text(WRONG)
    options = ["--config-file=", "--follow-imports=skip", f"--cache-dir={folder / 'cache'}"]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *OURS, str(folder / "wrong.py")],
        cwd=ROOT,
        env={"MYPYPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    lines = checked.stdout.splitlines()
    assert lines[-1].startswith("Found"), checked.stdout
    return [
        line
        for line in lines
        if ".pyi:" not in line and line.endswith(("[attr-defined]", "[call-arg]"))
    ]


def test_our_modules_use_names_and_arguments_that_the_bindings_have(complaints):
    assert [line for line in complaints if line.startswith(OURS)] == []


def test_a_wrong_name_and_a_missing_argument_are_found(complaints):
    found = [line for line in complaints if "wrong.py" in line]
    assert "profiling_verbosityy" in found[0]
    assert "stream_handle" in found[1]
