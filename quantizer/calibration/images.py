"""Image folder -> the tensors that the server would make from the same images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, Literal, TypeVar

from quantizer.errors import NoCalibrationImages
from service.errors import ServiceError
from service.progress import Progress, ReportProgress
from service.vision.detections import Floats
from service.vision.heads import STRIDES
from service.vision.image import MAX_PIXELS, SUFFIXES, Pixels, decode_image, upright_size
from service.vision.input_size import DEFAULT_SIZE, InputSize
from service.vision.preprocess import Preprocess, preprocess, tensor_of

MAX_HELD_OUT: Final = 16
HELD_OUT_SHARE: Final = 6  # one image in six, so that the ranges lose little

WantedSize = InputSize | Literal["auto"] | None  # None: the model decides
T = TypeVar("T")


def find_images(folder: Path) -> list[Path]:
    """Every JPEG, PNG, WebP and BMP file below the folder, by name.

    Raises NoCalibrationImages when there is none.
    """
    if not folder.is_dir():
        raise NoCalibrationImages(f"no such folder: {folder}; --calibration DIR names one")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise NoCalibrationImages(
            f"no {', '.join(sorted(SUFFIXES))} file in {folder}; --calibration DIR names a folder "
            "with some"
        )
    return paths


def hold_out(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Images to calibrate on, and images held out to compare int8 with fp32 on.

    The held-out ones are spread evenly over the names, so that a folder sorted by scene gives some
    of each scene to both.
    """
    count = min(MAX_HELD_OUT, len(paths) // HELD_OUT_SHARE)
    if count == 0:
        return list(paths), []
    chosen = {index * len(paths) // count for index in range(count)}
    held_out = [path for index, path in enumerate(paths) if index in chosen]
    return [path for index, path in enumerate(paths) if index not in chosen], held_out


def evenly_spread(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` of them, or all where there are no more."""
    if len(paths) <= count:
        return list(paths)
    return [paths[index * len(paths) // count] for index in range(count)]


def chosen_size(size: WantedSize, paths: Sequence[Path]) -> InputSize | None:
    """The size itself; for "auto" the least with 640 pixels on its longer side that holds an image
    of the median aspect ratio.

    Raises NoCalibrationImages when no image can be read.
    """
    if size != "auto":
        return size
    read = (_read(path, lambda data: upright_size(data, MAX_PIXELS)) for path in paths)
    sides = [each for each in read if each is not None]
    if not sides:
        raise NoCalibrationImages(
            f"none of {len(paths)} images can be read; --size 640x384 needs none"
        )
    aspect = median(width / height for width, height in sides)
    step, longer = STRIDES[-1], DEFAULT_SIZE.longest
    shorter = max(step, -(-round(longer * min(aspect, 1 / aspect)) // step) * step)
    return InputSize(longer, shorter) if aspect > 1 else InputSize(shorter, longer)


def read_pixels(paths: Sequence[Path]) -> Iterator[Pixels | None]:
    """u8[H,W,3] of each file, read one at a time; None where it cannot be decoded."""
    return (_read(path, lambda data: decode_image(data, MAX_PIXELS).pixels) for path in paths)


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Image files, with the input size and the preprocessing of the detector that reads them."""

    paths: Sequence[Path]
    size: InputSize
    preprocess: Preprocess

    def tensors(self, progress: ReportProgress = lambda _: None) -> Iterator[Floats | None]:
        """f32[1,3,height,width] of each file, read one at a time; None: cannot be decoded."""
        total = len(self.paths)
        progress(Progress("calibrate", 0, total))
        for done, path in enumerate(self.paths, start=1):
            photo = _read(path, lambda data: decode_image(data, MAX_PIXELS, self.size))
            if photo is None:
                yield None
            else:
                prepared = preprocess(photo, self.size, self.preprocess.padding)
                yield tensor_of(prepared.canvas, self.preprocess)
            progress(Progress("calibrate", done, total))

    def decodable(self, progress: ReportProgress = lambda _: None) -> Iterator[Floats]:
        """The tensors of the files that can be decoded."""
        return (tensor for tensor in self.tensors(progress) if tensor is not None)


def _read(path: Path, decode: Callable[[bytes], T]) -> T | None:
    try:
        return decode(path.read_bytes())
    except (ServiceError, OSError):
        return None
