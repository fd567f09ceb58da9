"""A bounded sample of the served images, for the next calibration; off unless the operator asks."""

import logging
import random
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Final

from PIL import Image

from service.vision.image import Pixels

log = logging.getLogger(__name__)

LONG_SIDE: Final = 1280  # pixels; a calibration sees less than that
QUALITY: Final = 92  # of the JPEG


class Collection:
    """At most `limit` images in a folder; each served image is as likely to be kept as any other.

    Reservoir sampling (Vitter's algorithm R). Pixels are encoded anew, so that no metadata of the
    upload, such as a place or a device, reaches the disk. What is there already counts, so that a
    restart goes on.
    """

    def __init__(self, folder: Path, limit: int, chance: random.Random | None = None) -> None:
        self._folder = folder
        self._limit = limit
        self._chance = chance or random.Random()
        self._lock = Lock()
        self._broken = False
        folder.mkdir(parents=True, exist_ok=True)
        self._seen = len(list(folder.glob("served-*.jpg")))
        log.info("keeping up to %d of the served images in %s", limit, folder)

    def place(self) -> int | None:
        """Where the next image goes; None for one that is not kept."""
        with self._lock:
            slot = (
                self._seen if self._seen < self._limit else self._chance.randrange(self._seen + 1)
            )
            self._seen += 1
            return slot if slot < self._limit and not self._broken else None

    def keep(self, slot: int, pixels: Pixels) -> None:
        """Write u8[H,W,3]; a disk that refuses ends the collection, never a request."""
        image = Image.fromarray(pixels)
        image.thumbnail((LONG_SIDE, LONG_SIDE))
        encoded = BytesIO()
        image.save(encoded, "JPEG", quality=QUALITY)
        target = self._folder / f"served-{slot:05d}.jpg"
        part = target.with_suffix(".part")
        try:
            part.write_bytes(encoded.getvalue())
            part.replace(target)
        except OSError as exc:
            self._broken = True
            log.error("no more images are kept: %s", exc)
