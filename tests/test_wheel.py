"""The wheel contains the files that the program reads and no others, and runs once installed."""

import os
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.processes import run

pytest.importorskip("hatchling", reason="hatchling is not installed: make test installs it")

ROOT = Path(__file__).parent.parent
PACKAGES = ("qyolo", "quantizer", "service", "zoo")

PROOF = """
from importlib.metadata import distribution
from pathlib import Path

import qyolo, quantizer.report.page, service.web
from service.app import create_app
from service.settings import Settings
from service.lifecycle import FolderSource
from zoo import bundle
from zoo.catalogue import catalogue

home = Path(qyolo.__file__).parents[1]
for found in (quantizer.report.page, service.web, bundle):
    assert home in Path(found.__file__).parents, found
assert home in distribution("qyolo").locate_file("qyolo/cli/commands.py").parents
create_app(Settings(), FolderSource(Path()))  # reads the page
bundle.model()  # checks its digest
assert catalogue() and quantizer.report.page.TEMPLATE.is_file()
print(home)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run_apart([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_and_nothing_else(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == {name for name in wanted if not name.startswith("zoo/train/")}


@pytest.mark.parametrize(
    ("pattern", "at_least"),
    [
        ("service/web/*.js", 5),
        ("service/web/index.html", 1),
        ("quantizer/report/page.html", 1),
        ("zoo/samples/*.jpg", 5),
        ("zoo/calibration/*.jpg", 32),
        ("zoo/qyolo_nano/qyolo-nano.onnx", 1),
        ("zoo/qyolo_nano/checksums.sha256", 1),
        ("zoo/catalogue.toml", 1),
    ],
)
def test_the_wheel_holds_the_files_that_the_program_reads(wheel, pattern, at_least):
    inside = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    assert sum(path.match(pattern) for path in inside) >= at_least


def test_the_metadata_is_that_of_the_project(wheel):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    text = archive.read(metadata).decode()
    for extra in project["optional-dependencies"]:
        assert f"Provides-Extra: {extra}\n" in text
    assert "License-Expression: Apache-2.0\n" in text
    assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())


def test_the_extras_are_documented():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    page = (ROOT / "docs/how-to/install.md").read_text("utf-8")
    for extra in project["optional-dependencies"]:
        assert f"| `{extra}` |" in page


def test_the_wheel_runs_without_the_source_tree(wheel, tmp_path):
    """A path file lends it the dependencies of this environment."""
    home = tmp_path / "venv"
    run_apart([sys.executable, "-m", "venv", "--without-pip", home])
    pip = [sys.executable, "-m", "pip", "--python", home, "--disable-pip-version-check"]
    run_apart([*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel])
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    printed = run_apart([home / "bin/qyolo", "--version"], cwd=tmp_path)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert printed == f"qyolo {version}\n"
    assert run_apart([home / "bin/python", "-c", PROOF], cwd=tmp_path).strip() == str(packages)


def run_apart(command, cwd=None):
    """Without the packages of this checkout."""
    apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return run(*command, cwd=cwd, env=apart)
