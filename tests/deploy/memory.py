"""The memory that a server may take by its settings, for limits of containers."""

import re
from typing import Final

from service.inference.decode_memory import MIB, default_decode_memory
from service.settings import Settings

BUILD_MIB: Final = 723  # the largest that was measured; a server of that model takes less
UNITS: Final = {"m": 1, "mi": 1, "g": 1024, "gi": 1024}


def mib(size: str) -> int:
    """`2g`, `2Gi` or `2G` as MiB."""
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", size.lower()).groups()
    return int(number) * UNITS[unit]


def needed_mib(limit_mib: int, settings: Settings) -> int:
    """The engine, the images in progress, and bodies together with what is decoded from them."""
    decoding = settings.decode_memory or default_decode_memory(limit_mib)
    return BUILD_MIB + (decoding + 2 * settings.max_inflight_bytes) // MIB
