"""The set-up of a process, which entry points call. Importing a package changes nothing."""

import contextlib
import ctypes
import os
import sys
import warnings
from typing import Final

ARENA_MAX: Final = -8  # glibc's M_ARENA_MAX
ARENAS: Final = 2


def set_up_process(serves: bool = False) -> None:
    """Turn the runtimes' telemetry off; `serves` limits malloc arenas too.

    Entry points call it first: runtimes read these settings when they are imported, and the limit
    must be set before the first thread starts.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # None makes the import fail, and OpenVINO falls back to a stub that sends nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    # Pillow's warnings quote numbers of the image, and Python keeps each distinct text for good.
    # Our own limits refuse such images with an error.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if serves:
        _limit_malloc_arenas()


def _limit_malloc_arenas() -> None:
    """At most ARENAS: glibc's default is eight for each core, each as large as its peak use."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(ARENA_MAX, ARENAS)
