"""Take the screenshots of docs/how-to/requests.md: on a desktop in light, on a phone in dark mode.

    make serve
    .venv/bin/python docs/screenshots.py [http://127.0.0.1:8000]

It sends requests for three minutes, so that the charts have data, and needs chromium. It uses the
installed fonts; fonts-inter looks best.
"""

import io
import random
import shutil
import sys
import time
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "zoo" / "samples"
TARGET = ROOT / "docs" / "screenshots"
SECONDS = 185  # the charts show three minutes
RUNS = 15  # of each picture, for medians
COLOURS = (256, 160, 128, 96, 64)  # of the palette; the first that fits into MOST_BYTES is used
MOST_BYTES = 200_000


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        desk = opened(browser, url, "light", viewport={"width": 1280, "height": 900})
        send_requests(desk, url)
        show(desk, "street.jpg", 0.25)
        save(desk.screenshot(full_page=True), "page-desktop.png")
        phone = opened(
            browser,
            url,
            "dark",
            viewport={"width": 390, "height": 844},
            device_scale_factor=1.5,
            is_mobile=True,
            has_touch=True,
        )
        show(phone, "coffee.jpg", 0.1)
        phone.evaluate("scrollTo(0, document.querySelector('#result').offsetTop - 12)")
        save(phone.screenshot(), "page-phone.png")
        browser.close()


def opened(browser: Browser, url: str, scheme: str, **options: object) -> Page:
    page = browser.new_page(color_scheme=scheme, **options)
    page.goto(url)
    page.locator("#trial").wait_for()
    return page


def send_requests(page: Page, url: str) -> None:
    """Photos to every variant, and sometimes a body that is no picture."""
    rng = random.Random(0)
    pictures = [path.read_bytes() for path in sorted(SAMPLES.glob("*.jpg"))]
    names = [row["name"] for row in httpx.get(f"{url}/v1/models").json()["variants"]]
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        body = b"no picture" if rng.random() < 0.03 else rng.choice(pictures)
        path = f"/v1/models/{rng.choice(names)}/detect"
        headers = {"Content-Type": "image/jpeg"}
        httpx.post(url + path, content=body, headers=headers, timeout=60)
        page.wait_for_timeout(rng.expovariate(1 / 250))


def show(page: Page, name: str, confidence: float) -> None:
    page.locator("#file").set_input_files(SAMPLES / name)
    page.locator("#result").wait_for()
    page.locator("#conf").fill(str(confidence))
    page.locator("#conf").blur()
    for run in range(2, RUNS + 1):
        page.locator("#run-again").click()
        page.get_by_text(f"Medians of {run} runs").wait_for()
    page.locator("#run-again").blur()
    page.mouse.move(0, 0)
    page.wait_for_timeout(2500)  # until the next scrape


def save(png: bytes, name: str) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in COLOURS:
        palette = picture.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        palette.save(TARGET / name, optimize=True)
        if (TARGET / name).stat().st_size < MOST_BYTES:
            break


if __name__ == "__main__":
    main()
