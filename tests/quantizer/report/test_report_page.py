"""report.html in a real browser, served over a socket."""

import json

import pytest
from PIL import Image
from playwright.sync_api import Page

from quantizer.build import build
from quantizer.config import BuildConfig
from tests.browser import chromium, needs_browser, watch
from tests.service.live import serving, two_variants
from tests.tiny_models import SIZE, save_tiny


@pytest.fixture(scope="module")
def watched(tiny_server):
    """The loaded page, with its errors and the URLs that it fetched."""
    with chromium() as browser:
        watched = watch(browser.new_page(viewport={"width": 1280, "height": 900}))
        address = f"http://127.0.0.1:{tiny_server.port}/v1/report.html"
        watched.page.goto(address, wait_until="networkidle")
        yield watched


@pytest.fixture
def page(watched):
    return watched.page


@pytest.fixture(scope="module")
def report(tiny_folder):
    return json.loads((tiny_folder / "report.json").read_text())


def cells(page: Page, selector: str) -> list[list[str]]:
    return [
        [cell.inner_text().strip() for cell in row.query_selector_all("td")]
        for row in page.query_selector_all(f"{selector} tbody tr")
    ]


@needs_browser
def test_the_page_loads_without_errors_and_without_other_files(watched, page, tiny_server):
    assert watched.messages == []
    outside = [url for url in watched.requests if not url.startswith("data:")]
    assert outside == [f"http://127.0.0.1:{tiny_server.port}/v1/report.html"]
    assert page.title() == "yolov5: build report"
    assert page.query_selector("script") is None


@needs_browser
def test_every_picture_is_drawn(page, report):
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    widths = page.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    samples = len(page.query_selector_all(".pair"))
    assert samples == 3
    charts = 2  # latency, frontier; every layer is in int8, so none was measured alone
    assert report["sensitivity"]["blocks"] == []
    assert len(widths) == charts + 2 * samples + len(report["tensors"])
    assert min(widths) > 50
    assert all(image.get_attribute("alt") for image in page.query_selector_all("img"))


@needs_browser
def test_the_variants_are_those_of_the_folder(page, report):
    rows = cells(page, "#variants ~ table")[: len(report["ms"])]
    assert [row[0].split()[0] for row in rows] == list(report["ms"])
    assert [row[0] for row in rows if "the default" in row[0]] == ["int8 (the default)"]
    assert all("accepted" in row[-1] for row in rows[1:])


@needs_browser
def test_every_convolution_has_a_row(page, report):
    rows = cells(page, ".scroll table")
    assert [row[0] for row in rows] == [layer["layer"] for layer in report["layers"]]
    by_name = {row[0]: row for row in rows}
    assert by_name["c3.cv3"][1] == "int8"
    assert ".." in by_name["c3.cv3"][-4]
    assert float(by_name["c3.cv3"][-2]) > 20


@needs_browser
def test_every_kind_of_operation_has_a_row(page, report):
    rows = cells(page, "#execution + table")
    kinds = report["execution"]["kinds"]
    assert [row[:3] for row in rows] == [
        [kind["kind"], kind["precision"], str(kind["count"])] for kind in kinds
    ]
    assert sum(float(row[4].rstrip(" %")) for row in rows) == pytest.approx(100, abs=1)
    assert "outside convolutions" in page.query_selector("#execution + table caption").inner_text()


@needs_browser
def test_the_page_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 800})
    wide = page.evaluate(
        "[...document.querySelectorAll('img, h1, p, .grid')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 90))"
    )
    assert wide == []


def test_names_in_the_page_are_escaped(tmp_path):
    model = save_tiny(tmp_path, "relu").rename(tmp_path / "<b>&model.onnx")
    photos, target = tmp_path / "photos", tmp_path / "built"
    photos.mkdir()
    target.mkdir()
    for index in range(6):
        Image.new("RGB", (40, 30), (40 * index, 80, 120)).save(photos / f"<i>{index}.png")
    build(BuildConfig(model, photos, size=SIZE, runtime="onnxruntime"), target, lambda _: None)
    text = (target / "report.html").read_text()
    assert "&lt;b&gt;&amp;model" in text
    assert "<b>&model" not in text
    assert "<i>" not in text


def test_the_page_forbids_scripts_and_requests(tiny_server):
    answer = tiny_server.client.get("/v1/report.html")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_folder_without_the_page_answers_404():
    variants, *_ = two_variants()
    with serving(variants) as live:
        answer = live.client.get("/v1/report.html")
        assert answer.status_code == 404
        assert "report.html" in answer.json()["detail"]
