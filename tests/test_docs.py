"""The documentation: links resolve, it names what exists, and the generated pages are complete."""

import importlib
import os
import re
import shlex
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from qyolo.cli.commands import app as command_line
from service.app import create_app
from service.lifecycle import FolderSource
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.processes import run, run_python
from tests.tiny_models import save_tiny

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MKDOCS = ROOT / ".venv/docs/bin/mkdocs"
CONFIG = ROOT / "mkdocs.yml"
AT_THE_TOP = ("README.md", "ARCHITECTURE.md")
MOST_LINES = {"README.md": 150, "ARCHITECTURE.md": 120}
COMMANDS = typer.main.get_command(command_line).commands
FOLDERS = "bench|deploy|docker|docs|quantizer|qyolo|requirements|service|tests|zoo"
LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w./*-]*[\w*])")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All files of the site, the generated pages among them."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs", ignore=lambda path, _: {"reference", "__pycache__"})
    run(sys.executable, DOCS / "pages", folder / "docs/reference", cwd=ROOT)
    shutil.copy(CONFIG, folder)
    for package in ("qyolo", "quantizer", "service", "zoo"):
        (folder / package).symlink_to(ROOT / package)
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Path below docs/ -> text."""
    docs = site / "docs"
    return {
        path.relative_to(docs).as_posix(): path.read_text("utf-8") for path in docs.rglob("*.md")
    }


@pytest.fixture(scope="module")
def written(pages):
    """The documents that are written by hand: name -> text."""
    own = {page: text for page, text in pages.items() if not page.startswith("reference/")}
    return own | {name: (ROOT / name).read_text("utf-8") for name in AT_THE_TOP}


@pytest.mark.parametrize(("name", "most"), MOST_LINES.items())
def test_the_first_documents_stay_short(name, most):
    assert len((ROOT / name).read_text("utf-8").splitlines()) <= most


def test_the_navigation_names_every_page_and_no_other(pages):
    text = CONFIG.read_text("utf-8").partition("\nnav:\n")[2]
    assert set(re.findall(r"[\w/-]+\.md", text)) == set(pages)


def test_links_in_the_documents_resolve(site, pages):
    texts = {f"docs/{page}": text for page, text in pages.items()}
    texts |= {name: (ROOT / name).read_text("utf-8") for name in AT_THE_TOP}
    for page, text in texts.items():
        for link in LINK.findall(FENCE.sub("", text)):
            target, _, anchor = link.partition("#")
            if re.match(r"\w+:", target):
                continue
            path = os.path.normpath(Path(page).parent / target) if target else page
            assert (site / path).is_file() or (ROOT / path).is_file(), f"{page}: {link}"
            assert not (page in AT_THE_TOP and path.startswith("docs/reference")), "not committed"
            if anchor:
                assert anchor in headings(texts[path]), f"{page}: {link}"


def test_paths_in_the_documents_exist(written):
    for name, text in written.items():
        for path in PATH.findall(text):
            assert path.endswith("/mine") or any(ROOT.glob(path)), f"{name}: {path}"


def test_commands_and_their_options_exist(written):
    targets = re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    seen = set()
    for name, text in written.items():
        for target in re.findall(r"`make (\w+)|^make (\w+)", text, re.MULTILINE):
            assert "".join(target) in targets, f"{name}: make {target}"
        for words in invocations(text):
            command, *arguments = words
            assert command in COMMANDS, f"{name}: qyolo {' '.join(words)}"
            seen.add(command)
            known = {
                option
                for each in COMMANDS[command].params
                for option in each.opts + each.secondary_opts
            }
            for argument in arguments:
                option = argument.partition("=")[0]
                assert not option.startswith("--") or option in known | {"--help"}, (
                    f"{name}: qyolo {' '.join(words)}"
                )
    assert {"up", "build", "serve", "cluster", "eval"} <= seen


def invocations(text):
    """The words of each call of qyolo: in a shell block, or between backticks."""
    lines = [line for block in SHELL.findall(text) for line in block.splitlines()]
    for line in lines + re.findall(r"`([^`\n]+)`", FENCE.sub("", text)):
        if found := re.match(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?qyolo ([a-z][^|;]*)", line):
            yield shlex.split(found[1], comments=True)


def test_the_reference_is_complete(pages, tmp_path):
    for command in COMMANDS:
        assert f"## qyolo {command}\n" in pages["reference/command-line.md"]
    for name in Settings.model_fields:
        assert f"| `QYOLO_{name.upper()}` | " in pages["reference/settings.md"]
    for name in ("CACHE_DIR", "DEVICE", "MIRROR"):
        assert f"| `QYOLO_{name}` | " in pages["reference/settings.md"]
    for path, operations in (
        create_app(Settings(), FolderSource(tmp_path)).openapi()["paths"].items()
    ):
        for method in operations:
            assert f"## {method.upper()} {path}\n" in pages["reference/http.md"]
            assert f"`{method.upper()} {path}`" in pages["how-to/requests.md"]
    shown = Metrics("1").render("")[0].decode()
    for name in re.findall(r"^# TYPE (qyolo_\w+?)(?:_created)? ", shown, re.MULTILINE):
        assert f"| `{name}" in pages["reference/metrics.md"]


def test_settings_and_metrics_that_are_named_exist(pages, written):
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    known = set(re.findall(r"\bQYOLO_\w+", pages["reference/settings.md"] + compose))
    known |= {"QYOLO_KEYS", "QYOLO_SHARED"}  # of docker/keys.yml and the tests
    metrics = pages["reference/metrics.md"]
    for name, text in written.items():
        assert set(re.findall(r"\bQYOLO_\w*[A-Z]\w*", text)) <= known, name
        for metric in re.findall(r"`(qyolo_\w+)`", text):
            assert f"`{metric}" in metrics, f"{name}: {metric}"


def test_the_public_names_exist(pages):
    page = pages["python.md"]
    named = re.findall(
        r"^::: ([\w.]+)$(?:\n    options: .*members: \[([^]]*)\])?", page, re.MULTILINE
    )
    for name, members in named:
        module, _, member = name.rpartition(".")
        if not members:
            assert hasattr(importlib.import_module(module), member), name
        for each in filter(None, members.split(", ")):
            assert hasattr(importlib.import_module(name), each), f"{name}.{each}"


def test_the_python_example_runs(tmp_path, photos):
    code = re.search(r"```python\n(.*?)```", (DOCS / "python.md").read_text("utf-8"), re.DOTALL)[1]
    save_tiny(tmp_path, "yolov5").rename(tmp_path / "yolo.onnx")
    shutil.copytree(photos, tmp_path / "images")
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    of_the_tiny_model = code.replace(
        'Path("images")', 'Path("images"), size=64, runtime="onnxruntime"'
    )
    paths = os.environ | {"PYTHONPATH": str(ROOT)}
    assert "phase='compare'" in run_python(of_the_tiny_model, cwd=tmp_path, env=paths)


@pytest.mark.skipif(not MKDOCS.exists(), reason="mkdocs is not installed: make docs installs it")
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(site):
    without_advice = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    run(MKDOCS, "build", "--strict", "--quiet", cwd=site, env=without_advice)
    built = site / "site"
    assert (built / "index.html").is_file()
    for path in built.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(path.read_text("utf-8"))
        assert not [each for each in loaded.addresses if "//" in each], path
    for path in built.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", path.read_text("utf-8")), path


class Loaded(HTMLParser):
    """Addresses that a browser loads by itself."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses.append(given.get("src") or "")
        if tag == "link":
            self.addresses.append(given.get("href") or "")


def headings(text):
    """The anchors of a page's headings, as the site makes them."""
    words = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", each).strip().lower() for each in words]
    return {re.sub(r"[-\s]+", "-", each) for each in plain}
