"""What the README says of settings, routes and commands is what there is."""

import re
from pathlib import Path

import pytest

from service.app import create_app
from service.lifecycle import FolderSource
from service.settings import Settings
from tests.qyolo.commands import qyolo

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SETTINGS = dict(re.findall(r"^\| `QYOLO_(\w+)` \| `([^`]+)` \|", README, re.MULTILINE))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_table_with_its_default(name):
    assert SETTINGS[name.upper()] == str(Settings.model_fields[name].default)


def test_the_table_names_no_setting_that_does_not_exist():
    of_the_command_line = {"CACHE_DIR", "DEVICE", "MIRROR"}
    assert set(SETTINGS) - of_the_command_line == {name.upper() for name in Settings.model_fields}


def test_every_route_is_in_the_readme(tmp_path):
    app = create_app(Settings(), FolderSource(tmp_path))
    for path in app.openapi()["paths"]:
        assert f"{path}`" in README, path


def test_every_command_is_in_the_readme():
    commands = re.findall(r"^[│ ]+([a-z]+) {2,}", qyolo("--help").out, re.MULTILINE)
    assert {"build", "serve", "up", "models", "detect", "eval", "bench"} <= set(commands)
    for command in commands:
        assert f"`qyolo {command}" in README, command
