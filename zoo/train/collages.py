"""Compose the bundled calibration images from photos that may be redistributed.

python -m zoo.train.collages TARGET SOURCE ...
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from PIL import Image

from zoo.train.augment import Composer
from zoo.train.pack import pack

COUNT: Final = 32
SIZE: Final = 640
QUALITY: Final = 85


def write_collages(sources: list[Path], target: Path) -> None:
    """Write collage-00.jpg, collage-01.jpg, ...: the same ones each time."""
    with TemporaryDirectory() as folder:
        composer = Composer(pack(sources, [], Path(folder)))
        for number in range(COUNT):
            sample = composer.sample(np.random.default_rng(number), SIZE)
            picture = Image.fromarray(sample.image)
            picture.save(target / f"collage-{number:02}.jpg", quality=QUALITY, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help="folder to write into")
    parser.add_argument("sources", type=Path, nargs="+", help="folders of photos")
    arguments = parser.parse_args()
    write_collages(arguments.sources, arguments.target)


if __name__ == "__main__":
    main()
