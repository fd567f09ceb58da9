"""The folder of this user's builds, catalogue models and distributed model folders."""

import os
from pathlib import Path


def cache_root() -> Path:
    """QYOLO_CACHE_DIR, or qyolo in the user's cache directory (XDG)."""
    chosen = os.environ.get("QYOLO_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qyolo"
