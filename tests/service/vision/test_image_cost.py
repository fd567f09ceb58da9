"""The memory that decoding takes, measured in a process of its own."""

import json

import pytest

from bench.robustness.worst_inputs import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGBA,
    blank_animation,
    blank_png,
    blank_webp,
)
from service.vision.image import EncodedImage
from service.vision.input_size import InputSize
from tests.processes import run_python
from tests.service.pictures import encoded, gradient

SIDE = 2000
MIB = 2**20

# Reads the paths of images; prints the peak above the memory before of each, in KiB.
PROGRAM = """
import json, pathlib, sys
from qyolo.process import set_up_process
set_up_process(serves=True)
from service.vision.image import EncodedImage
from service.vision.input_size import InputSize
def status(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0])
peaks = []
for path in sys.argv[2:]:
    data = pathlib.Path(path).read_bytes()
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    EncodedImage(data, 10**9, InputSize.of(sys.argv[1])).decode()
    peaks.append(status("VmHWM") - before)
print(json.dumps(peaks))
"""

# Has little more memory than it uses when it decodes.
STARVED = """
import pathlib, resource, sys
from service.errors import OutOfMemory
from service.vision.image import decode_image
data = pathlib.Path(sys.argv[1]).read_bytes()
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 20 * 2**20, resource.RLIM_INFINITY))
try:
    decode_image(data, 10**9)
except OutOfMemory as exc:
    print(exc)
"""

IMAGES = {
    "1 bit": lambda: blank_png(SIDE, SIDE, GREY, 1),
    "grey of 16 bits": lambda: blank_png(SIDE, SIDE, GREY, 16),
    "grey with alpha": lambda: blank_png(SIDE, SIDE, GREY_ALPHA),
    "palette with alpha": lambda: blank_png(SIDE, SIDE, PALETTE),
    "RGBA": lambda: blank_png(SIDE, SIDE, RGBA),
    "lossless WebP": lambda: blank_webp(SIDE, SIDE),
    "WebP animation": lambda: blank_animation(SIDE, SIDE),
    "BMP": lambda: encoded(gradient(SIDE, SIDE), "BMP"),
    "progressive JPEG": lambda: encoded(gradient(SIDE, SIDE), "JPEG", progressive=True),
    "CMYK JPEG": lambda: encoded(gradient(SIDE, SIDE).convert("CMYK"), "JPEG", progressive=True),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name, make in IMAGES.items():
        (folder / name).write_bytes(make())
    return folder


@pytest.mark.parametrize("target", [64, SIDE])
def test_the_cost_of_an_image_is_known_from_its_header(files, target):
    paths = [files / name for name in IMAGES]
    peaks = json.loads(run_python(PROGRAM, target, *paths))
    for path, peak in zip(paths, peaks, strict=True):
        cost = EncodedImage(path.read_bytes(), 10**9, InputSize.of(target)).cost()
        assert 1024 * peak <= cost + 4 * MIB, path.name
    assert sum(peaks) > 40 * 1024


def test_a_lack_of_memory_is_not_blamed_on_the_image(files):
    for name in ("RGBA", "BMP"):
        assert "not enough memory" in run_python(STARVED, files / name), name
