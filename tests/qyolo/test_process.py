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
