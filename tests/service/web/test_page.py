"""The page at / in a real browser, from a real server."""

import base64
import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from PIL import Image
from playwright.sync_api import Browser, JSHandle, Page, expect

from service.errors import ModelUnavailable
from service.inference.models import ModelFolder
from service.lifecycle import FolderSource
from service.manifest import write_manifest
from service.progress import Progress
from tests.browser import chromium, needs_browser, watch
from tests.fakes import (
    CLASS_NAMES,
    FailingSource,
    FakeEngine,
    HeldSource,
    manifest_of,
    variants_of,
    yolov5_raw,
)
from tests.service.live import FP32_RAW, INT8_RAW, Live, post, serving, two_variants
from tests.service.pictures import jpeg, png
from tests.waiting import WAIT_LIMIT_S, wait_until

pytestmark = needs_browser

DESK = {"width": 1280, "height": 900}
PICTURE = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": jpeg()}
KEY = "open-sesame-open-sesame"
ERROR_STATUS = "Failed to load resource"  # how Chromium logs an answer that is not a 2xx
MARKUP = "<img src=x onerror=alert(1)>"
FILE_IN_PAGE = """([text, type]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "photo", {type}));
    return transfer;
}"""

PASTE = """(clipboardData) => document.body.dispatchEvent(
    new ClipboardEvent("paste", {clipboardData, bubbles: true}))"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


class SlowEngine(FakeEngine):
    def infer(self, image):
        time.sleep(0.02)
        return super().infer(image)


@pytest.fixture(scope="module")
def live():
    variants = variants_of({"fp32": SlowEngine(FP32_RAW), "int8": FakeEngine(INT8_RAW)})
    with serving(variants, max_pixels=1_000_000) as running:
        yield running


@pytest.fixture(scope="module")
def single():
    """A server with one variant, one request at a time, and markup as a class name."""
    engine = FakeEngine(FP32_RAW)
    variants = variants_of({"fp32": engine}, class_names=(MARKUP, *CLASS_NAMES[1:]))
    with serving(variants, capacity=1) as running:
        yield running, engine


@pytest.fixture(scope="module")
def locked():
    with serving(api_keys=KEY) as running:
        yield running


@contextmanager
def opened(browser: Browser, live: Live, path: str = "/", **options: object) -> Iterator[Page]:
    """The page; checks afterwards that it logged no error and requested nothing from elsewhere."""
    origin = f"http://127.0.0.1:{live.port}"
    with browser.new_context(**{"viewport": DESK} | options) as context:
        tab = watch(context.new_page())
        tab.page.goto(origin + path)
        yield tab.page
    assert [line for line in tab.messages if not line.startswith(ERROR_STATUS)] == []
    own = (f"{origin}/", f"blob:{origin}/")
    assert {url for url in tab.requests if not url.startswith(own)} == set()


@pytest.fixture
def page(browser, live):
    with opened(browser, live) as page:
        yield page


def show(page: Page, picture: object = PICTURE) -> None:
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#result")).to_be_visible()
    expect(page.locator("#trial")).to_have_attribute("aria-busy", "false")


def labels(page: Page, side: str, kind: str = "") -> list[str]:
    """The labels of the boxes of one side, sorted."""
    return sorted(page.locator(f"#panel-{side} .box{kind} > span").all_inner_texts())


@pytest.fixture(scope="module")
def shown(browser, live):
    """A page with a picture and its boxes, for tests that only read."""
    with opened(browser, live) as page:
        show(page)
        yield page


def rows(page: Page, table: str) -> list[list[str]]:
    return [
        re.split(r"\s*\t\s*|\n", row) for row in page.locator(f"{table} tbody tr").all_inner_texts()
    ]


def test_a_chosen_picture_is_shown_with_the_boxes_of_each_side(shown):
    for side in ("a", "b"):
        picture = shown.locator(f"#panel-{side} img")
        assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [200, 100]
        assert picture.get_attribute("alt")
    assert labels(shown, "a") == ["dog 0.60", "person 0.90"]
    assert labels(shown, "b") == ["person 0.85", "traffic light 0.50"]
    left, right = (shown.locator(f"#panel-{side}").bounding_box() for side in ("a", "b"))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    image = shown.locator("#panel-a img").bounding_box()
    box = shown.locator("#panel-a .box.matched").bounding_box()
    scale = image["width"] / 200
    place = [box["x"] - image["x"], box["y"] - image["y"], box["width"], box["height"]]
    assert place == pytest.approx([75 * scale, 37.5 * scale, 50 * scale, 25 * scale], abs=1)


def test_boxes_of_one_side_only_are_marked_and_counted(shown):
    assert labels(shown, "a", ".unmatched") == ["dog 0.60"]
    assert labels(shown, "b", ".unmatched") == ["traffic light 0.50"]
    style = "box => getComputedStyle(box).borderStyle"
    assert shown.locator(".box.unmatched").first.evaluate(style) == "dashed"
    expect(shown.locator("#panel-a figcaption")).to_contain_text("1 not in int8")
    expect(shown.locator("#summary")).to_have_text(
        "1 object in common, 1 only in fp32, 1 only in int8; mean overlap 0.950."
    )
    assert rows(shown, "#objects") == [
        ["dog", "0.600", "\N{EN DASH}", "only fp32"],
        ["traffic light", "\N{EN DASH}", "0.500", "only int8"],
        ["person", "0.900", "0.850", "0.950"],
    ]


def test_the_latency_of_each_stage_is_shown_for_both_sides(shown):
    table = {row[0]: row[1:] for row in rows(shown, "#latency")}
    assert list(table) == ["decode", "preprocess", "queue", "infer", "postprocess", "total"]
    assert all(float(value) >= 0 for row in table.values() for value in row)
    assert table["decode"][0] == table["decode"][1]
    speed = re.search(
        r"int8 infers (.*) times as fast as fp32", shown.locator("#speed").inner_text()
    )
    assert float(speed[1]) > 1


def test_repeated_runs_show_medians_until_a_variant_changes(page):
    show(page)
    expect(page.locator("#speed")).to_contain_text("One run")
    for run in (2, 3):
        page.get_by_role("button", name="Run again").click()
        expect(page.locator("#speed")).to_contain_text(f"Medians of {run} runs")
    page.get_by_label("Compare").select_option("int8")
    expect(page.locator("#speed")).to_contain_text("One run")
    expect(page.locator("#panel-a .chip")).to_have_text("int8")
    assert labels(page, "a") == labels(page, "b") == ["person 0.85", "traffic light 0.50"]
    assert page.locator(".box.unmatched").count() == 0
    expect(page.locator("#summary")).to_contain_text("no difference")


def drop(page: Page, transfer: JSHandle) -> None:
    page.dispatch_event("#live", "dragover", {"dataTransfer": transfer})
    expect(page.locator("body.dropping")).to_have_count(1)
    page.dispatch_event("#live", "drop", {"dataTransfer": transfer})
    expect(page.locator("body.dropping")).to_have_count(0)


def paste(page: Page, transfer: JSHandle) -> None:
    page.evaluate(PASTE, transfer)


@pytest.mark.parametrize("give", [drop, paste])
def test_a_picture_can_be_dropped_or_pasted_anywhere(page, give):
    expect(page.locator("#trial")).to_be_visible()
    text = base64.b64encode(jpeg()).decode()
    give(page, page.evaluate_handle(FILE_IN_PAGE, [text, "image/jpeg"]))
    expect(page.locator("#panel-a .box")).to_have_count(2)


def test_a_picture_can_be_taken_with_the_camera_and_saved_with_its_boxes(page):
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Take it").click()
    expect(page.locator("#panel-a .box")).to_have_count(2)
    assert page.locator("#panel-a img").evaluate("image => image.naturalWidth") > 300
    assert page.locator("#viewfinder").evaluate("video => video.srcObject") is None
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as picture").click()
    with Image.open(download.value.path()) as picture:
        assert picture.format == "JPEG"
        assert picture.width > 400


def many_boxes(seed: int) -> list[tuple[float, float, float, float, float, int]]:
    """Sixty overlapping boxes; another seed moves each a little."""
    place, noise = random.Random(1), random.Random(seed)
    return [
        (
            place.uniform(10, 54) + noise.uniform(-2, 2),
            place.uniform(22, 42) + noise.uniform(-2, 2),
            place.uniform(6, 16),
            place.uniform(6, 16),
            place.uniform(0.05, 0.95) * noise.uniform(0.8, 1.0),
            place.randrange(3),
        )
        for _ in range(60)
    ]


def test_the_slider_matches_boxes_as_the_server_does_without_a_request(browser):
    engines = {
        "fp32": FakeEngine(yolov5_raw(many_boxes(2))),
        "int8": FakeEngine(yolov5_raw(many_boxes(3))),
    }
    with serving(variants_of(engines)) as live, opened(browser, live) as page:
        show(page)
        asked = engines["fp32"].calls
        counts = []
        for conf in (0.05, 0.2, 0.45, 0.7, 0.95):
            page.locator("#conf").fill(f"{conf:.2f}")
            shown = {side: labels(page, side) for side in ("a", "b")}
            unmatched = {side: labels(page, side, ".unmatched") for side in ("a", "b")}
            counts.append(len(shown["a"]))
            assert engines["fp32"].calls == asked
            answer = live.client.post(
                f"/v1/compare?conf={conf}", content=jpeg(), headers={"Content-Type": "image/jpeg"}
            ).json()
            asked += 1
            for side in ("a", "b"):
                assert len(shown[side]) == answer[side]["boxes"]
                assert unmatched[side] == sorted(
                    f"{box['class_name']} {box['score']:.2f}" for box in answer[f"only_{side}"]
                )
        assert counts == sorted(counts, reverse=True)
        assert counts[0] > 30
        assert counts[-1] == 0
        expect(page.locator("#objects-none")).to_be_visible()


def test_everything_works_with_the_keyboard(page):
    expect(page.locator("#trial")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the picture")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    with page.expect_file_chooser() as choosing:
        page.keyboard.press("Space")
    choosing.value.set_files(PICTURE)
    expect(page.locator("#panel-a .box")).to_have_count(2)
    for name in ("camera-open", "a", "b", "conf"):
        page.keyboard.press("Tab")
        expect(page.locator(f"#{name}")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#conf-value")).to_have_text("0.65")
    expect(page.locator("#panel-a .box")).to_have_count(1)
    for name in ("run-again", "save"):
        page.keyboard.press("Tab")
        expect(page.locator(f"#{name}")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="person")).to_be_focused()
    expect(page.locator(".box.highlighted")).to_have_count(2)


def test_the_page_fits_a_phone(browser, live):
    phone = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}
    with opened(browser, live, **phone) as page:
        expect(page.locator("#trial")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        show(page)
        for width in (390, 320):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            left, right = (page.locator(f"#panel-{side}").bounding_box() for side in ("a", "b"))
            assert left["y"] + left["height"] <= right["y"]


# The contrast of each text with the first opaque background below it (WCAG 2.2, 1.4.3).
LOW_CONTRAST = """() => {
    const channel = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (text) => {
        const [r, g, b] = rgba(text).map((c) => channel(c / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = (node) => {
        for (let at = node; at !== null; at = at.parentElement) {
            const found = getComputedStyle(at).backgroundColor;
            if ((rgba(found)[3] ?? 1) === 1) return found;
        }
        return "rgb(255, 255, 255)";
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (texts.nextNode()) {
        const node = texts.currentNode.parentElement;
        if (texts.currentNode.data.trim() === "" || !node.checkVisibility()) continue;
        const style = getComputedStyle(node);
        const colour = node instanceof SVGElement ? style.fill : style.color;
        const [dark, bright] = [light(colour), light(background(node))].sort((a, b) => a - b);
        const ratio = (bright + 0.05) / (dark + 0.05);
        if (ratio < 4.5) found.push([node.outerHTML.slice(0, 80), ratio]);
    }
    return found;
}"""


def test_texts_have_enough_contrast_in_light_and_dark(page):
    show(page)
    expect(page.locator("#chart-latency svg")).to_be_visible()
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(LOW_CONTRAST) == []
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
        assert (brightness < 64) == (scheme == "dark")


@pytest.mark.parametrize(
    ("content", "mime"),
    [
        (b"hello", "text/plain"),
        (jpeg()[:-500], "image/jpeg"),
        (jpeg(1100, 1000), "image/jpeg"),  # more pixels than the server accepts
    ],
)
def test_a_bad_file_shows_the_servers_error_and_keeps_the_last_picture(page, live, content, mime):
    show(page)
    page.locator("#file").set_input_files({"name": "a", "mimeType": mime, "buffer": content})
    headers = {"Content-Type": "image/x"}
    problem = live.client.post("/v1/compare", content=content, headers=headers).json()
    expect(page.get_by_role("alert")).to_have_text(f"{problem['title']}: {problem['detail']}")
    assert page.locator("#panel-a .box").count() == 2
    show(page)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_busy_server_is_tried_again_until_it_answers(browser, single):
    live, engine = single
    with opened(browser, live) as page, ThreadPoolExecutor(1) as pool:
        expect(page.locator("#trial")).to_be_visible()
        engine.entered.clear()
        engine.gate.clear()
        headers = {"Content-Type": "image/png"}
        waiting = pool.submit(live.client.post, "/v1/detect", content=png(), headers=headers)
        assert engine.entered.wait(WAIT_LIMIT_S)
        page.locator("#file").set_input_files(PICTURE)
        expect(page.get_by_role("alert")).to_contain_text("Trying again in 1 second")
        engine.gate.set()
        assert waiting.result().status_code == 200
        expect(page.locator("#panel-a .box")).to_have_count(2)
        expect(page.get_by_role("alert")).to_be_hidden()


def test_after_a_failure_the_user_can_try_again(browser, single):
    live, engine = single
    with opened(browser, live) as page:
        expect(page.locator("#trial")).to_be_visible()
        engine.failure = RuntimeError("secret")
        page.locator("#file").set_input_files(PICTURE)
        expect(page.get_by_role("alert")).to_contain_text("log")
        expect(page.get_by_role("alert")).not_to_contain_text("secret")
        expect(page.locator("#result")).to_be_hidden()
        engine.failure = None
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#panel-a .box")).to_have_count(2)


def test_a_class_name_is_shown_as_text_never_as_markup(browser, single):
    with opened(browser, single[0]) as page:
        show(page)
        assert labels(page, "a") == sorted([f"{MARKUP} 0.90", "dog 0.60"])
        assert page.locator("main img").count() == 2


def test_the_progress_of_a_build_is_shown_and_an_early_picture_kept(browser):
    source = HeldSource(Progress("calibrating", 12, 96))
    variants, *_ = two_variants()
    with serving(variants, source) as live, opened(browser, live) as page:
        expect(page.get_by_role("heading", name="The model is being built")).to_be_visible()
        expect(page.locator("#building-text")).to_have_text("calibrating 12 of 96")
        bar = page.get_by_role("progressbar")
        assert bar.evaluate("bar => [bar.value, bar.max]") == [12, 96]
        expect(page.locator("#trial")).to_be_hidden()
        page.locator("#file").set_input_files(PICTURE)
        expect(page.get_by_role("alert")).to_contain_text("kept here until the server is ready")
        source.release()
        expect(page.locator("#panel-a .box")).to_have_count(2)
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.locator("#building")).to_be_hidden()
        expect(page.locator("#status")).to_have_text("Ready")


def test_a_failed_build_is_shown(browser):
    with (
        serving(source=FailingSource(ModelUnavailable("no"))) as live,
        opened(browser, live) as page,
    ):
        expect(page.locator("#status")).to_have_text("Failed")
        expect(page.locator("#building-text")).to_contain_text("log")
        expect(page.get_by_role("progressbar")).to_be_hidden()


def test_the_page_shows_when_the_server_does_not_answer_and_when_it_does_again(browser, live):
    with opened(browser, live) as page:
        expect(page.locator("#status")).to_have_text("Ready")
        page.clock.install()
        page.reload()
        expect(page.locator("#status")).to_have_text("Ready")
        page.route("**/readyz", lambda route: route.abort())
        page.clock.run_for(10_000)
        expect(page.locator("#status")).to_have_text("No answer")
        page.unroute("**/readyz")
        page.clock.run_for(1000)
        expect(page.locator("#status")).to_have_text("Ready")


def test_a_rejected_variant_is_shown(browser):
    variants, *_ = two_variants()
    variants.manifest = variants.manifest.model_copy(
        update={"default": "fp32", "rejected": {"int8": "it lost too much"}}
    )
    with serving(variants) as live, opened(browser, live) as page:
        expect(page.locator("#caveat")).to_have_text(
            "fp32 is served, int8 was rejected: it lost too much"
        )
        expect(page.locator("#b")).to_have_value("int8")
        expect(page.locator("#b option:checked")).to_have_text("int8 (rejected)")


def test_the_page_requests_a_key_stores_it_for_the_tab_and_sends_it(browser, locked):
    with opened(browser, locked) as page:
        dialog = page.get_by_role("dialog", name="This server needs an API key")
        dialog.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("did not accept")
        dialog.get_by_label("API key").fill(KEY)
        dialog.get_by_role("button", name="Use it").click()
        expect(dialog).to_be_hidden()
        show(page)
        with page.expect_download() as download:
            page.get_by_role("link", name="Metrics").click()
        assert "qyolo_build_info" in download.value.path().read_text()
        page.reload()
        expect(page.locator("#trial")).to_be_visible()
        expect(dialog).to_be_hidden()


def test_without_a_key_an_error_is_shown_and_the_key_can_be_given_later(browser, locked):
    with opened(browser, locked) as page:
        page.get_by_role("button", name="Continue without").click()
        expect(page.get_by_role("alert")).to_contain_text("key")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("dialog")).to_be_visible()


def test_the_charts_show_the_requests_since_the_page_opened(browser, live):
    with opened(browser, live) as page:
        page.clock.install()
        page.reload()
        expect(page.locator("#chart-latency")).to_contain_text("no pictures")
        expect(page.locator("#chart-requests")).to_contain_text("no requests")
        for _ in range(5):
            live.client.post("/v1/detect", content=png(), headers={"Content-Type": "image/png"})
        live.client.post("/v1/detect", content=b"no", headers={"Content-Type": "image/png"})
        page.clock.run_for(2000)
        entries = page.locator("#requests-legend li")
        expect(entries).to_have_text(["200: 5", "415: 1"])
        assert page.locator("#chart-requests rect.status-2").count() == 1
        assert page.locator("#chart-requests rect.status-4").count() == 1
        assert page.locator("#chart-latency path").count() == 2
        page.locator("#stage").select_option("infer")
        expect(page.locator("#chart-latency svg")).to_have_attribute(
            "aria-label", re.compile("infer")
        )
        table = {row[0]: row[1:] for row in rows(page, "#quantiles")}
        assert table["infer"][0] == "\N{EN DASH}"
        p50, p99 = map(float, table["total"][1].split(" / "))
        assert 0 < p50 <= p99
        page.get_by_role("button", name="Pause").click()
        live.client.post("/v1/detect", content=png(), headers={"Content-Type": "image/png"})
        page.clock.run_for(4000)
        expect(entries).to_have_text(["200: 5", "415: 1"])


QUANTILES = """async ([before, after]) => {
    const { increaseOf, quantile, snapshot } = await import("/page/exposition.js");
    const [old, now] = [before, after].map((text) => snapshot(text, 0));
    const increase = increaseOf(now.stages.get("int8|total"), old.stages.get("int8|total"));
    return { values: [0.1, 0.5, 0.99].map((share) => quantile(increase, share)),
             requests: [...now.requests] };
}"""


def exposition(counts: dict[str, int]) -> str:
    lines = [
        f'qyolo_stage_duration_seconds_bucket{{variant="int8",device="cpu",stage="total",le="{le}"}}'
        f" {count}.0"
        for le, count in counts.items()
    ]
    odd = r'qyolo_http_requests_total{route="/v1/a\"b",method="GET",status="200"} 3.0'
    return "\n".join(["# HELP x y", *lines, odd, ""])


def test_quantiles_are_interpolated_as_prometheus_does(page):
    before = exposition({"0.01": 10, "0.02": 10, "0.04": 10, "+Inf": 10})
    after = exposition({"0.01": 10, "0.02": 18, "0.04": 20, "+Inf": 20})
    found = page.evaluate(QUANTILES, [before, after])
    assert found["values"] == pytest.approx([11.25, 16.25, 39.0])
    assert found["requests"] == [["200", 3]]
    restarted = page.evaluate(QUANTILES, [after, before])
    assert restarted["values"] == pytest.approx([1.0, 5.0, 9.9])
    slow = exposition({"0.01": 0, "0.02": 0, "0.04": 0, "+Inf": 7})
    nothing = exposition({"0.01": 0, "0.02": 0, "0.04": 0, "+Inf": 0})
    assert page.evaluate(QUANTILES, [nothing, slow])["values"] == [40, 40, 40]
    assert page.evaluate(QUANTILES, [slow, slow])["values"] == [None, None, None]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A server of the models tiny and boats-2, which finds other boxes and has no int8."""
    home = tmp_path_factory.mktemp("several")
    raw = {"fp32": yolov5_raw([(32.0, 32.0, 16.0, 8.0, 0.7, 1)]), "fp16": INT8_RAW}
    served = {
        "tiny": {"fp32": FakeEngine(FP32_RAW), "int8": FakeEngine(INT8_RAW)},
        "boats-2": {name: FakeEngine(each) for name, each in raw.items()},
    }
    for name, engines in served.items():
        (home / name).mkdir()
        write_manifest(home / name, manifest_of(*engines, name=name))

    def load(folder, *_):
        return variants_of(served[folder.name], name=folder.name)

    others = [ModelFolder(home / "boats-2")]
    with serving(source=FolderSource(home / "tiny"), load=load, others=others) as running:
        wait_until(lambda: running.client.get("/readyz").status_code == 200)
        yield running


def test_one_of_several_models_is_selected(browser, several):
    with opened(browser, several) as page:
        models = page.get_by_role("combobox", name="Model")
        expect(models).to_have_value("tiny")
        show(page)
        assert labels(page, "a") == ["dog 0.60", "person 0.90"]
        page.get_by_role("button", name="Run again").click()
        expect(page.locator("#speed")).to_contain_text("Medians of 2 runs")
        models.select_option("boats-2")
        expect(page.locator("#model")).to_contain_text("boats-2")
        expect(page.locator("#panel-b .chip")).to_have_text("fp16")
        assert labels(page, "a") == ["traffic light 0.70"]
        expect(page.locator("#speed")).to_contain_text("One run")
        assert page.locator("#a option").all_inner_texts() == ["fp32", "fp16 (default)"]
        report = page.get_by_role("link", name="Build report")
        assert report.get_attribute("href") == "v1/report.html?model=boats-2"
        with page.expect_request("**/v1/compare?*") as asked, page.expect_download():
            page.get_by_role("button", name="Save as picture").click()
        assert "model=boats-2" in asked.value.url
        show(page, PICTURE | {"buffer": png(), "mimeType": "image/png"})
        assert labels(page, "a") == ["traffic light 0.70"]


def test_the_charts_are_of_the_selected_model(browser, several):
    with opened(browser, several) as page:
        page.clock.install()
        page.reload()
        page.get_by_role("combobox", name="Model").select_option("boats-2")
        expect(page.locator("#model")).to_contain_text("boats-2")
        page.clock.run_for(2000)
        for model, count in (("tiny", 1), ("boats-2", 2)):
            for _ in range(count):
                post(several.client, jpeg(), f"/v1/models/{model}:fp32/detect")
            page.clock.run_for(2000)
            drawn = page.locator("#chart-latency path")
            expect(drawn).to_have_count(0 if model == "tiny" else 2)
        expect(page.locator("#latency-legend")).to_contain_text("fp16")


def test_with_one_model_there_is_nothing_to_select(shown):
    expect(shown.locator("#models")).to_be_hidden()
    link = shown.get_by_role("link", name="Build report")
    assert link.get_attribute("href") == "v1/report.html"


def test_the_docs_list_every_operation_and_can_run_one(browser, live):
    paths = live.client.get("/openapi.json").json()["paths"]
    with opened(browser, live, "/docs") as page:
        expect(page.locator(".opblock")).to_have_count(sum(map(len, paths.values())))
        expect(page.locator(".back")).to_have_attribute("href", ".")
        block = page.locator("#operations-model-models_v1_models_get")
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        status = block.locator(".live-responses-table .response .response-col_status")
        expect(status).to_have_text("200")
