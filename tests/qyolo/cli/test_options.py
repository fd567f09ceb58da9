from inspect import Parameter, signature
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from quantizer.errors import BadOption
from qyolo.cli.fields import options_of, takes
from qyolo.cli.options import message, takes_settings
from qyolo.errors import CommandError
from qyolo.user_cache import cache_root
from service.settings import Settings


class Example(BaseModel):
    folder: Path = Field(description="where it lies")
    size_mib: int = Field(
        default=3, ge=1, le=9, description="its size.", json_schema_extra={"option": "size"}
    )
    names: tuple[str, ...] = Field(default=(), json_schema_extra={"metavar": "NAME"})
    fast: bool = Field(default=True, description="in a hurry")
    share: float | None = Field(default=None, ge=0, json_schema_extra={"env": "QYOLO_SHARE"})


def parts(option: Parameter) -> tuple[object, ...]:
    kind, info = option.annotation.__origin__, option.annotation.__metadata__[0]
    return kind, info.default, info.min, info.max, info.help, option.default  # typer: its names


def test_an_option_has_the_type_the_bounds_the_default_and_the_help_of_its_field():
    options = options_of(Example.model_fields)
    assert {name: parts(option) for name, option in options.items()} == {
        "folder": (Path | None, "--folder", None, None, "Where it lies.", None),
        "size_mib": (int, "--size", 1, 9, "Its size.", 3),
        "names": (list[str] | None, "--names", None, None, ".", None),
        "fast": (bool, "--fast/--no-fast", None, None, "In a hurry.", True),
        "share": (float | None, "--share", 0, None, ".", None),
    }
    names, share = (options[name].annotation.__metadata__[0] for name in ("names", "share"))
    assert (names.metavar, share.envvar) == ("NAME", "QYOLO_SHARE")


def test_the_default_can_come_from_the_environment_or_be_missing():
    option = options_of(Example.model_fields, env_prefix="QYOLO_")["size_mib"]
    text = "Its size. (env: QYOLO_SIZE_MIB, default: 3)"
    assert parts(option) == (int | None, "--size", 1, 9, text, None)
    required = options_of(Example.model_fields, required=True)
    assert required["folder"].default is Parameter.empty
    assert required["size_mib"].default == 3


def test_options_replace_parameters_of_a_command():
    @takes("example", options_of(Example.model_fields), dict)
    def command(first: int, example: dict, last: int = 0) -> None:
        seen.append((first, example, last))

    seen: list[object] = []
    assert list(signature(command).parameters) == ["first", *Example.model_fields, "last"]
    given = dict.fromkeys(Example.model_fields, 1)
    command(first=5, last=6, **given)
    assert seen == [(5, given, 6)]


def test_an_invalid_setting_is_reported_by_its_option_or_variable(monkeypatch):
    seen: list[Settings] = []
    command = takes_settings(lambda settings: seen.append(settings))
    nothing = dict.fromkeys(signature(command).parameters)
    command(**nothing | {"port": 8001})
    assert seen[0].port == 8001
    with pytest.raises(BadOption) as caught:
        command(**nothing | {"port": 70000})
    assert message(caught.value).startswith("--port 70000: Input should be less than or equal")
    monkeypatch.setenv("QYOLO_PORT", "70000")
    with pytest.raises(CommandError, match="QYOLO_PORT: Input should be less than or equal"):
        command(**nothing)


@pytest.mark.parametrize(
    ("field", "option"),
    [("workspace_mib", "--workspace"), ("min_sqnr", "--min-sqnr"), ("max_replicas", "--max")],
)
def test_an_error_names_the_option_of_its_field(field, option):
    assert message(BadOption(field, "1: no")) == f"{option} 1: no"


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ({"QYOLO_CACHE_DIR": "/some/where", "XDG_CACHE_HOME": "/xdg"}, "/some/where"),
        ({"XDG_CACHE_HOME": "/xdg", "HOME": "/home/me"}, "/xdg/qyolo"),
        ({"HOME": "/home/me"}, "/home/me/.cache/qyolo"),
    ],
)
def test_the_root_of_the_cache(environment, root, monkeypatch):
    for name in ("QYOLO_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_root() == Path(root)
