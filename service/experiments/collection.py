"""A bounded sample of the served images for the next calibration; off unless it is configured."""

import logging
import random
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Final

from PIL import Image

from service.vision.image import Pixels

log = logging.getLogger(__name__)

MAX_SIDE: Final = 1280  # pixels; a calibration uses fewer
QUALITY: Final = 92  # of the JPEG


class Collection:
    """At most `limit` images in a folder; every served image is equally likely to be among them.

    Reservoir sampling (Vitter's algorithm R). Pixels are encoded again, so that no metadata of the
    upload, such as a place or a device, reaches the disk. After a restart, the images that are
    there already count.
    """

    def __init__(self, folder: Path, limit: int, chance: random.Random | None = None) -> None:
        self._folder = folder
        self._limit = limit
        self._random = chance or random.Random()
        self._lock = Lock()
        self._has_failed = False
        folder.mkdir(parents=True, exist_ok=True)
        self._seen = len(list(folder.glob("served-*.jpg")))
        log.info("keeping up to %d of the served images in %s", limit, folder)

    def reserve(self) -> int | None:
        """The index under which to keep the next image; None for one that is not kept."""
        with self._lock:
            is_filling = self._seen < self._limit
            index = self._seen if is_filling else self._random.randrange(self._seen + 1)
            self._seen += 1
            return index if index < self._limit and not self._has_failed else None

    def keep(self, index: int, pixels: Pixels) -> None:
        """Write u8[H,W,3]; when the disk fails, it is logged and no more images are kept."""
        image = Image.fromarray(pixels)
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        encoded = BytesIO()
        image.save(encoded, "JPEG", quality=QUALITY)
        target = self._folder / f"served-{index:05d}.jpg"
        part = target.with_suffix(".part")
        try:
            part.write_bytes(encoded.getvalue())
            part.replace(target)
        except OSError as exc:
            self._has_failed = True
            log.error("no more images are kept: %s", exc)
