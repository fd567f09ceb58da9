"""Download one file over HTTP; an interrupted download resumes.

<target>.part       the bytes so far
<target>.part.tag   the ETag of their version, so that two versions never mix
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

ATTEMPTS: Final = 4  # attempts in a row without a new byte, after which the download fails
PAUSE_S: Final = 0.5  # before the second attempt; doubled each time
TIMEOUT_S: Final = 30.0  # without a byte
CHUNK: Final = 1 << 18  # bytes
MAX_SIZE: Final = 2**31  # bytes; an ONNX file is a protobuf message, which is smaller
TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def download(
    address: str, target: Path, progress: ReportProgress, max_size: int = MAX_SIZE
) -> Path:
    """Download to <target>.part and return that path; the caller checks and renames it.

    Raises DownloadFailed with the remedy; the next call resumes after the bytes so far. A file of
    more than `max_size` bytes is not the one that was meant: what has arrived of it is removed.
    """
    part = _part_of(target)
    part.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _size(part)
        try:
            _resume(address, target, progress, max_size)
            return part
        except _TooLarge as exc:
            part.unlink(missing_ok=True)
            _tag_of(part).unlink(missing_ok=True)
            reason = f"the server sends more than the {max_size} bytes that the file has"
            raise _failure(address, target, reason) from exc
        except (HTTPException, URLError, SSLError, TimeoutError, ConnectionError) as exc:
            failures = 0 if _size(part) > before else failures + 1
            if failures == ATTEMPTS:
                reason = str(getattr(exc, "reason", None) or exc) or type(exc).__name__
                raise _failure(address, target, reason) from exc
            time.sleep(PAUSE_S * 2**failures)
        except OSError as exc:  # of the disk: those of the network are all above
            raise DownloadFailed(f"{part} cannot be written: {exc.strerror}") from exc


class _TooLarge(Exception):
    """The file is larger than it may be."""


def _resume(address: str, target: Path, progress: ReportProgress, max_size: int) -> None:
    """One request for the bytes that are missing; raises DownloadFailed if a retry is useless."""
    part = _part_of(target)
    tag = _tag_of(part)
    done = _size(part)
    headers = {"User-Agent": "qyolo"}
    if done and tag.exists():
        headers |= {"Range": f"bytes={done}-", "If-Range": tag.read_text()}
    try:
        response: HTTPResponse = urlopen(Request(address, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as exc:
        exc.close()
        if exc.code == 416:  # the part is longer than the file: it is of another version
            part.unlink(missing_ok=True)
            tag.unlink(missing_ok=True)
            raise ConnectionError("the file has changed") from exc
        if exc.code in TRANSIENT:
            raise
        reason = f"the server answered {exc.code} {exc.reason}"
        raise _failure(address, target, reason) from exc
    with response:
        if response.status != 206:
            done = 0
        length = int(response.headers.get("Content-Length") or 0)
        total = done + length if length else 0
        if total > max_size:
            raise _TooLarge
        free = shutil.disk_usage(part.parent).free
        if length > free:
            reason = f"{part.parent} has {_mb(free)} free, {_mb(length)} are needed"
            raise _failure(address, target, reason)
        _save_tag(response, tag)
        with part.open("r+b" if done else "wb") as file:
            file.seek(done)
            while chunk := response.read(CHUNK):
                done += len(chunk)
                if done > max_size:
                    raise _TooLarge
                file.write(chunk)
                progress(Progress("download", done, total))
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    if done < total:
        raise ConnectionError(f"the connection closed after {done} of {total} bytes")
    tag.unlink(missing_ok=True)


def _save_tag(response: HTTPResponse, tag: Path) -> None:
    validator = response.headers.get("ETag") or ""
    if validator and not validator.startswith("W/"):
        tag.write_text(validator)
    else:
        tag.unlink(missing_ok=True)  # without a strong ETag the next attempt starts at byte 0


def _part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _tag_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _failure(address: str, target: Path, reason: str) -> DownloadFailed:
    return DownloadFailed(
        f"{address} cannot be downloaded: {reason}. Run the command again to resume, or get the "
        f"file in another way and save it as {target}"
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
