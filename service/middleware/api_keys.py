"""API keys: `[name:]secret` or `[name:]sha256:<hex>`, the digest being that of the secret.

Only the SHA-256 of a key is kept, and only its name is logged.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from service.errors import ServiceError

HASHED: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
NAMED: Final = re.compile(r"([\w.-]{1,64}):(.+)", re.ASCII)
SECRET: Final = re.compile(r"[!-9;-~]{16,}")  # valid in a header, and too long to guess


class BadKeys(ServiceError):
    """The configured keys cannot be used; the message contains none of them."""


def read_keys(listed: str | None, file: Path | None) -> Mapping[bytes, str]:
    """Digest -> name of the keys in a comma-separated list and in a file, one on each line.

    In the file, `#` starts a comment.

    Names need not be unique: during a rotation two keys share one. Raises BadKeys.
    """
    keys: dict[bytes, str] = {}
    if listed is not None:
        keys.update(_parse(listed.split(","), "API key"))
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise BadKeys(f"the API keys in {file} cannot be read: {exc}") from exc
        keys.update(_parse((line.partition("#")[0] for line in lines), f"{file}, line"))
    if not keys and (listed, file) != (None, None):
        raise BadKeys("API keys are configured, but none is given")
    return keys


def _parse(entries: Iterable[str], where: str) -> Iterator[tuple[bytes, str]]:
    for number, entry in enumerate(entries, start=1):
        if text := entry.strip():
            yield _key(text, f"{where} {number}")


def _key(text: str, where: str) -> tuple[bytes, str]:
    named = None if HASHED.fullmatch(text) else NAMED.fullmatch(text)
    name, secret = named.groups() if named else (None, text)
    if hashed := HASHED.fullmatch(secret):
        digest = bytes.fromhex(hashed[1])
    elif SECRET.fullmatch(secret) and name != "sha256":  # sha256: and less than 64 digits
        digest = digest_of(secret)
    else:
        raise BadKeys(
            f"{where} is not [name:]secret or [name:]sha256:<hex>; a secret has at least 16 "
            "characters, no spaces and no colon: `openssl rand -hex 32` makes one"
        )
    return digest, name or f"key-{digest.hex()[:8]}"


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
