"""The set-up of a process, which entry points call. Importing a package changes nothing."""

import contextlib
import ctypes
import os
import sys
import warnings
from typing import Final

# glibc's M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
ARENAS: Final = 2
MAX_PNG_TEXT: Final = 4 * 2**20  # characters
LARGE: Final = 8 * 2**20  # bytes: above a photo of 1920x1080, below a block of Pillow's


def set_up_process(serves: bool = False) -> None:
    """Turn the runtimes' telemetry off; `serves` bounds what malloc and Pillow keep.

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
        _limit_malloc()
        _limit_texts()


def _limit_malloc() -> None:
    """At most ARENAS: glibc's default is eight for each core, each as large as its peak use.

    What is LARGE goes back to the system as soon as it is freed. By default glibc keeps blocks of
    32 MiB once it has seen some, and an arena keeps all below a block that is in use.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(ARENA_MAX, ARENAS)
        mallopt(MMAP_THRESHOLD, LARGE)
        mallopt(TRIM_THRESHOLD, 2 * LARGE)


def _limit_texts() -> None:
    """The texts in a PNG, which Pillow keeps: by default of 64 MiB, and 4 bytes a character."""
    from PIL import PngImagePlugin

    PngImagePlugin.MAX_TEXT_MEMORY = MAX_PNG_TEXT
