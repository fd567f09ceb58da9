"""Built once: model folders kept by content, published whole or not at all.

<root>/<key>/         a finished model folder
<root>/<key>.lock     held while the entry is looked at or built
<root>/<key>.new      a build under way; what a killed one left is cleared by the next
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from quantizer.calibration.images import find_images
from quantizer.compile.hardware import Hardware, Installed, detect
from quantizer.compile.runtime import choose_runtime
from quantizer.config import BuildConfig
from quantizer.errors import BadOption
from quantizer.model.files import require_onnx
from quantizer.versions import sha256_of, source_digest, versions
from service.engines.cpu import cpu_fingerprint
from service.engines.gpu import Gpu
from service.errors import BadModelFolder
from service.manifest import CHECKSUMS, DEVICE_OF, verify

log = logging.getLogger(__name__)

KEY_LENGTH: Final = 24  # hexadecimal digits: 96 bits
SCANT_BYTES: Final = 2**16  # a disk with less is full


def build_key(config: BuildConfig, hardware: Hardware | None = None) -> str:
    """A digest of everything that a build depends on, and of nothing else.

    The model's bytes (external data too), the calibration images' bytes, the options, the runtime
    that they lead to on this box, the versions of the packages and of this code, the processor, and
    the GPU if that is built for. Not paths, not times, not the thread count. Raises
    UnsupportedModel or NoCalibrationImages when there is nothing to read.
    """
    require_onnx(config.model)
    options = asdict(config)
    for field in ("model", "calibration", "classes", "truth", "threads", "timing_caches"):
        del options[field]
    del options["device"], options["runtime"]  # what they lead to counts
    facts = {
        "name": config.model.stem,
        "model": [sha256_of(path) for path in _parts_of(config.model)],
        "images": sorted(sha256_of(path) for path in find_images(config.calibration)),
        "classes": _digest_of(config.classes),
        "truth": _truth_of(config),
        "options": options,
        "engine": _engine(config, hardware or detect()),
        "versions": versions(),
        "code": source_digest(),
        "cpu": cpu_fingerprint(),
    }
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def lookup(root: Path, key: str) -> Path | None:
    """The entry of a key if it is there and whole; a damaged one counts as absent."""
    entry = root / key
    if not entry.exists():
        return None
    try:
        verify(entry)
    except BadModelFolder as exc:
        log.warning("cache entry %s is damaged and will be rebuilt: %s", key, exc)
        return None
    return entry


def obtain(
    root: Path,
    key: str,
    build: Callable[[Path], object],
    rebuild: bool = False,
    on_wait: Callable[[], None] = lambda: None,
) -> Path:
    """The entry of a key, built where it is absent or damaged, or where `rebuild` says so.

    One process at a time works on a key; another says so by `on_wait`, waits, and takes what the
    first built.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / f"{key}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        entry = None if rebuild else lookup(root, key)
        if entry is None:
            entry = root / key
            publish(entry, build)
        return entry
    finally:
        lock.release()


def publish(target: Path, build: Callable[[Path], object]) -> None:
    """Let `build` fill a new folder beside `target`, then put it in target's place in one step.

    A failed or interrupted build leaves `target` as it was. Raises OSError where the disk is full.
    """
    staging = target.with_name(f"{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        build(staging)
        _to_disk(staging)
        _swap(staging, target)
    except Exception as exc:
        if shutil.disk_usage(staging).free < SCANT_BYTES:  # which some runtimes fail to name
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target.parent)) from exc
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_target(folder: Path) -> None:
    """Refuse to replace something that is not a model folder; raises BadOption."""
    if folder.exists() and not folder.is_dir():
        raise BadOption(f"--out {folder} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CHECKSUMS).exists():
        raise BadOption(f"--out {folder} holds other things; name an empty or a new folder")


def _swap(staging: Path, target: Path) -> None:
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    staging.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _to_disk(folder: Path) -> None:
    """A rename may reach the disk before the data does, unless that is flushed first."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parts_of(model: Path) -> list[Path]:
    """The ONNX file and, by the exporters' habit of naming, its external data."""
    beside = model.parent.glob(f"{model.name}*data*")
    return [model, *sorted(path for path in beside if path.is_file())]


def _engine(config: BuildConfig, hardware: Hardware) -> list[str]:
    """What compiles the engines, and for which GPU."""
    runtime = choose_runtime(config.device, config.runtime, hardware).runtime
    state, gpu = hardware.runtimes[runtime], hardware.gpu
    facts: list[str] = [runtime]
    if isinstance(state, Installed):
        facts.append(state.version)
    if isinstance(gpu, Gpu) and DEVICE_OF[runtime] == "gpu":
        facts.append(gpu.fingerprint)
    return facts


def _truth_of(config: BuildConfig) -> list[str | None]:
    """Digests of the annotations and of the images beside them."""
    if config.truth is None:
        return []
    images = [sha256_of(path) for path in find_images(config.truth.images)]
    return [_digest_of(config.truth.annotations), *sorted(images)]


def _digest_of(path: Path | None) -> str | None:
    if path is None:
        return None
    if not path.is_file():
        raise BadOption(f"no such file: {path}")
    return sha256_of(path)
