"""How the C library keeps what has been freed."""

import contextlib
import ctypes
from typing import Final

ARENA_MAX: Final = -8  # glibc's M_ARENA_MAX
FEW: Final = 2


def limit_malloc_arenas() -> None:
    """Let threads share their stores of freed memory, where this is glibc.

    By default there are eight for each core, and each keeps what the largest request that came its
    way has left. To be called before there are threads.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(ARENA_MAX, FEW)
