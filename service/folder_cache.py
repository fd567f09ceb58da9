"""A cache of model folders by key; a folder is published completely or not at all.

<root>/<key>/         a finished model folder
<root>/<key>.lock     held while the entry is read or written
<root>/<key>.new      an entry being written; the next writer clears what a killed one left
<root>/<key>.old      the entry that is being replaced
"""

import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from service.errors import BadModelFolder
from service.manifest import verify

log = logging.getLogger(__name__)

KEY_LENGTH: Final = 24  # hexadecimal digits: 96 bits
FULL_DISK_BYTES: Final = 2**16  # a disk with less free space counts as full


def lookup(root: Path, key: str) -> Path | None:
    """The entry of a key if it exists and is intact; a damaged one counts as absent."""
    entry = root / key
    if not entry.exists():
        return None
    try:
        verify(entry)
    except BadModelFolder as exc:
        log.warning("cache entry %s is damaged and will be replaced: %s", key, exc)
        return None
    return entry


def obtain(
    root: Path,
    key: str,
    fill: Callable[[Path], object],
    rebuild: bool = False,
    on_wait: Callable[[], None] = lambda: None,
) -> Path:
    """The entry of a key; `fill` writes it where it is absent or damaged, or if `rebuild` is set.

    One process at a time works on a key. A second process calls `on_wait`, waits, and takes the
    first one's entry.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / f"{key}.lock")
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        on_wait()
        held = lock.acquire()
    with held:
        if rebuild or lookup(root, key) is None:
            publish(root / key, fill)
    return root / key


def publish(target: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a new folder beside `target`, then replace `target` with it in one step.

    If `fill` fails or is interrupted, `target` stays as it was. Raises OSError if the disk is full.
    """
    staging = target.with_name(f"{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        fill(staging)
        _flush(staging)
        _swap(staging, target)
    except Exception as exc:
        # Some runtimes do not name a full disk as the cause of their failure.
        if shutil.disk_usage(staging).free < FULL_DISK_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target.parent)) from exc
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(staging: Path, target: Path) -> None:
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    staging.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Write the folder to disk: otherwise the rename may reach the disk before the data does."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
