"""The site: its pages are there, its links lead somewhere, what is written from the code holds."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.app import create_app
from service.lifecycle import FolderSource
from service.settings import Settings
from tests.qyolo.commands import qyolo
from tests.tiny_models import save_tiny

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MKDOCS = ROOT / ".venv/docs/bin/mkdocs"
CONFIG = ROOT / "mkdocs.yml"
LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """All that the site is made of, with the pages that are written from the code."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs", ignore=lambda path, _: {"reference", "__pycache__"})
    subprocess.run(
        [sys.executable, DOCS / "pages", folder / "docs/reference"], cwd=ROOT, check=True
    )
    shutil.copy(CONFIG, folder)
    for package in ("qyolo", "quantizer", "service", "zoo"):
        (folder / package).symlink_to(ROOT / package)
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Path below docs/ -> text without code."""
    docs = site / "docs"
    return {
        path.relative_to(docs).as_posix(): FENCE.sub("", path.read_text("utf-8"))
        for path in docs.rglob("*.md")
    }


def test_the_navigation_names_every_page_and_no_other(pages):
    text = CONFIG.read_text("utf-8").partition("\nnav:\n")[2]
    assert set(re.findall(r"[\w/-]+\.md", text)) == set(pages)


def test_links_between_pages_lead_somewhere(site, pages):
    for page, text in pages.items():
        for link in LINK.findall(text):
            target, _, anchor = link.partition("#")
            if re.match(r"\w+:", target):
                continue
            path = os.path.normpath(Path(page).parent / target) if target else page
            assert (site / "docs" / path).is_file(), f"{page}: {link}"
            if anchor:
                assert anchor in headings(pages[path]), f"{page}: {link}"


def test_every_command_setting_and_route_is_in_the_reference(pages, tmp_path):
    commands = re.findall(r"^[│ ]+([a-z]+) {2,}", qyolo("--help").out, re.MULTILINE)
    assert commands
    for command in commands:
        assert f"## qyolo {command}\n" in pages["reference/command-line.md"]
    for name in Settings.model_fields:
        assert f"`QYOLO_{name.upper()}`" in pages["reference/settings.md"]
    for path, operations in (
        create_app(Settings(), FolderSource(tmp_path)).openapi()["paths"].items()
    ):
        for method in operations:
            assert f"## {method.upper()} {path}\n" in pages["reference/http.md"]


def test_the_public_names_exist(pages):
    for name in re.findall(r"^::: ([\w.]+)$", pages["python.md"], re.MULTILINE):
        module, _, member = name.rpartition(".")
        found = [ROOT / f"{each.replace('.', '/')}.py" for each in (name, module)]
        assert found[0].is_file() or re.search(
            rf"^(def|class|async def) {member}\b", found[1].read_text("utf-8"), re.MULTILINE
        ), name


def test_the_python_example_runs(tmp_path, photos):
    code = re.search(r"```python\n(.*?)```", (DOCS / "python.md").read_text("utf-8"), re.DOTALL)[1]
    save_tiny(tmp_path, "yolov5").rename(tmp_path / "yolo.onnx")
    shutil.copytree(photos, tmp_path / "images")
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    of_the_tiny_model = code.replace('Path("images")', 'Path("images"), size=64')
    ran = subprocess.run(
        [sys.executable, "-c", of_the_tiny_model],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "phase='compare'" in ran.stdout


@pytest.mark.skipif(not MKDOCS.exists(), reason="mkdocs is not installed: make docs installs it")
def test_the_site_builds_without_a_warning_and_asks_nobody_else(site):
    ran = subprocess.run(
        [MKDOCS, "build", "--strict", "--quiet"],
        cwd=site,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    built = site / "site"
    assert (built / "index.html").is_file()
    for path in built.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(path.read_text("utf-8"))
        assert not [each for each in loaded.addresses if "//" in each], path
    for path in built.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", path.read_text("utf-8")), path


class Loaded(HTMLParser):
    """Addresses that a browser fetches by itself."""

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
    words = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", each).strip().lower() for each in words]
    return {re.sub(r"[-\s]+", "-", each) for each in plain}
