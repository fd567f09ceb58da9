"""The width and the height of the image that a model reads."""

import re
from dataclasses import dataclass
from typing import Final, Self

WRITTEN: Final = re.compile(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?")


@dataclass(frozen=True, slots=True)
class InputSize:
    """In pixels. It is written as one side for a square, otherwise as WIDTHxHEIGHT."""

    width: int
    height: int

    @classmethod
    def of(cls, written: object) -> Self:
        """640, "640" or "640x384"; raises ValueError for anything else."""
        if isinstance(written, cls):
            return written
        is_number = isinstance(written, int) and not isinstance(written, bool)
        match = WRITTEN.fullmatch(str(written)) if is_number or isinstance(written, str) else None
        if match is None:
            raise ValueError("must be one side or WIDTHxHEIGHT in pixels, as 640 or 640x384")
        return cls(int(match[1]), int(match[2] or match[1]))

    @property
    def written(self) -> int | str:
        """As `of` reads it: a number for a square."""
        return self.width if self.width == self.height else self.text

    @property
    def text(self) -> str:
        """Both sides, of a square too."""
        return f"{self.width}x{self.height}"

    @property
    def longest(self) -> int:
        return max(self.width, self.height)

    def shrink(self, width: int, height: int) -> float:
        """The factor by which an image shrinks to fit without distortion; below 1 it grows."""
        return max(width / self.width, height / self.height)

    def __str__(self) -> str:
        return str(self.written)


DEFAULT_SIZE: Final = InputSize(640, 640)  # at which nearly all YOLOs are trained
