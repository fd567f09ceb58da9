"""One file over HTTP, gone on with where it broke off; whoever asked checks it.

<target>.part       what has arrived so far
<target>.part.tag   which version of the file that is (its ETag), so that two never mix
"""

import os
import shutil
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from ssl import SSLError
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from service.progress import Progress, ReportProgress
from zoo.errors import DownloadFailed

ATTEMPTS: Final = 4  # in a row without a single new byte
PAUSE_S: Final = 0.5  # before the second attempt; doubled each time
TIMEOUT_S: Final = 30.0  # without a byte
CHUNK: Final = 1 << 18
TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def download(address: str, target: Path, progress: ReportProgress) -> Path:
    """Fetch an address to <target>.part; returns that path once every byte is there.

    Raises DownloadFailed, saying what to do; what has arrived is kept for the next call.
    """
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    attempt = 0
    while True:
        before = _size(part)
        try:
            _go_on(address, part, progress)
            return part
        except _Final as exc:
            raise DownloadFailed(_advice(address, target, str(exc))) from exc
        except (HTTPException, URLError, SSLError, TimeoutError, ConnectionError) as exc:
            attempt = 0 if _size(part) > before else attempt + 1
            if attempt == ATTEMPTS:
                reason = _advice(address, target, _reason(exc))
                raise DownloadFailed(reason) from exc
            time.sleep(PAUSE_S * 2**attempt)
        except OSError as exc:  # the disk's: the network's are all above
            message = f"{part} cannot be written: {exc.strerror}"
            raise DownloadFailed(message) from exc


class _Final(Exception):
    """Trying again would not help."""


def _go_on(address: str, part: Path, progress: ReportProgress) -> None:
    tag = part.with_name(f"{part.name}.tag")
    have = _size(part)
    headers = {"User-Agent": "qyolo"}
    if have and tag.exists():
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text()}
    try:
        response: HTTPResponse = urlopen(Request(address, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as exc:
        exc.close()
        if exc.code == 416:  # more has arrived than there is: another version
            part.unlink(missing_ok=True)
            tag.unlink(missing_ok=True)
            raise ConnectionError("the file has changed") from exc
        if exc.code in TRANSIENT:
            raise
        raise _Final(f"the server answered {exc.code} {exc.reason}") from exc
    with response:
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else 0
        _ensure_room(part, total - have)
        _remember(response, tag)
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                progress(Progress("download", have, total))
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    if total and have < total:
        raise ConnectionError(f"it broke off after {have} of {total} bytes")
    tag.unlink(missing_ok=True)


def _remember(response: HTTPResponse, tag: Path) -> None:
    validator = response.headers.get("ETag") or ""
    if validator and not validator.startswith("W/"):
        tag.write_text(validator)
    else:
        tag.unlink(missing_ok=True)  # without a strong one, the next attempt starts anew


def _ensure_room(part: Path, wanted: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if wanted > free:
        raise _Final(f"{part.parent} has room for {_mb(free)}, {_mb(wanted)} are needed")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(exc: Exception) -> str:
    reason = getattr(exc, "reason", None) or exc
    return str(reason) or type(exc).__name__


def _advice(address: str, target: Path, reason: str) -> str:
    return (
        f"{address} cannot be had: {reason}. Run the command again to go on, or fetch that file "
        f"elsewhere and put it here: {target}"
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
