"""Image folder -> the tensors that the server would make of these images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from quantizer.errors import NoCalibrationImages
from service.errors import ServiceError
from service.progress import Progress, ReportProgress
from service.vision.detections import Floats
from service.vision.image import MAX_PIXELS, SUFFIXES, Pixels, decode_image
from service.vision.preprocess import Preprocess, preprocess

FEW_IMAGES: Final = 16  # below this a range depends on chance; the build warns
MAX_HELD_OUT: Final = 16
HELD_OUT_SHARE: Final = 6  # one image in six, so that the ranges lose little

T = TypeVar("T")


def find_images(folder: Path) -> list[Path]:
    """Every JPEG, PNG, WebP and BMP file below the folder, by name.

    Raises NoCalibrationImages when there is none.
    """
    if not folder.is_dir():
        raise NoCalibrationImages(f"no such folder: {folder}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise NoCalibrationImages(f"no {', '.join(sorted(SUFFIXES))} file in {folder}")
    return found


def split(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Images to calibrate on, and images held out to compare int8 with fp32 on.

    Spread evenly over the names, so that a folder sorted by scene gives some of each to both.
    """
    count = min(MAX_HELD_OUT, len(paths) // HELD_OUT_SHARE)
    if count == 0:
        return paths, []
    chosen = {index * len(paths) // count for index in range(count)}
    held_out = [path for index, path in enumerate(paths) if index in chosen]
    return [path for index, path in enumerate(paths) if index not in chosen], held_out


@dataclass(slots=True)
class Images:
    """Reads images one at a time; those that cannot be decoded are skipped and remembered."""

    paths: list[Path]
    unreadable: list[Path] = field(default_factory=list)

    def pixels(self) -> Iterator[Pixels | None]:
        """u8[H,W,3] for each path in turn, None for one that is unreadable."""
        for path in self.paths:
            yield self._read(path, lambda data: decode_image(data, MAX_PIXELS).pixels)

    def count_usable(self, folder: Path) -> int:
        """How many were readable, once all were read; raises NoCalibrationImages if none was.

        `folder` is where the caller had them from.
        """
        count = len(self.paths) - len(self.unreadable)
        if count == 0:
            raise NoCalibrationImages(
                f"none of the {len(self.paths)} images in {folder} can be decoded"
            )
        return count

    def usable(self, size: int, how: Preprocess, progress: ReportProgress) -> Iterator[Floats]:
        """The tensors of the readable images, telling how many of the files are done."""
        total = len(self.paths)
        progress(Progress("calibrate", 0, total))
        for done, tensor in enumerate(self.tensors(size, how), start=1):
            if tensor is not None:
                yield tensor
            progress(Progress("calibrate", done, total))

    def tensors(self, size: int, how: Preprocess) -> Iterator[Floats | None]:
        """f32[1,3,size,size] for each path in turn, None for one that is unreadable."""
        for path in self.paths:
            photo = self._read(path, lambda data: decode_image(data, MAX_PIXELS, size))
            if photo is None:
                yield None
            else:
                yield preprocess(photo, size, how).tensor

    def _read(self, path: Path, decode: Callable[[bytes], T]) -> T | None:
        try:
            return decode(path.read_bytes())
        except (ServiceError, OSError):
            self.unreadable.append(path)
            return None
