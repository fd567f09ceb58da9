import sys

import pytest

from tests.processes import run_python

# How many arenas eight threads make that take memory at once, as glibc itself counts them.
COUNT = """
import ctypes, sys, threading
from qyolo.process import set_up_process
set_up_process(serves=sys.argv[1] == "few")
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(8)
def take():
    together.wait()
    libc.malloc(ctypes.c_size_t(5000))
    together.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def arenas(wanted: str) -> int:
    return run_python(COUNT, wanted).count("<heap nr=")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_threads_share_two_arenas():
    assert arenas("few") <= 2 < arenas("many")


# Decodes large images in four threads, then a PNG with 65 texts of a MiB, and prints the memory
# that is kept after the first in MiB, and what becomes of the second.
DECODE = """
import pathlib, sys, threading
from qyolo.process import set_up_process
set_up_process(serves=True)
from service.errors import CorruptImage
from service.vision.image import decode_image
from bench.robustness.worst_inputs import RGBA, blank_png, png_of_texts
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) // 256
data = blank_png(3000, 2000, RGBA)
decode_image(data[:5000] + data[5000:], 10**7)
before = resident()
threads = [threading.Thread(target=decode_image, args=(data, 10**7)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(resident() - before)
try:
    decode_image(png_of_texts(65), 10**7)
except CorruptImage:
    print("refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_the_memory_of_large_images_is_returned_and_texts_are_limited():
    kept_mib, texts = run_python(DECODE).split()
    assert int(kept_mib) < 40  # each of two arenas may keep 16
    assert texts == "refused"
