"""Photos -> training samples: random scales, mosaics, pasted photos, mix-up, colour changes.

The teacher predicts on the finished sample, so unlabelled photos can be changed in any way.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from service.vision.letterbox import PAD_GREY
from zoo.train.pack import Pack, Pixels

MOSAIC: Final = 0.5  # probability, like the next three
PASTE: Final = 0.15
MIX: Final = 0.1
MIRROR: Final = 0.5
WIDE_SCALES: Final = (0.3, 2.0)  # relative to the scale at which the photo just fits
NEAR_SCALES: Final = (0.8, 1.25)
WIDE: Final = 0.6  # share of single photos with a scale of the wide range
PLAIN_WIDE: Final = 0.3  # the same of plain samples
COVER_SCALES: Final = (0.7, 1.6)  # relative to the scale at which it covers its mosaic tile
STRETCH: Final = 0.15  # largest change of the logarithm of the aspect ratio
HUE, SATURATION, VALUE = 0.06, 0.6, 0.4  # largest turn in radians, and changes of the gains
LUMINANCE: Final = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
FREQUENT: Final = 0.05  # a class in this share of the photos, or more, is not drawn more often
MAX_BOOST: Final = 8.0  # of photos of rare classes
EMPTY_WEIGHT: Final = 0.5  # of a photo in which the teacher finds nothing
FOUND: Final = 0.3  # score above which the teacher has found an object
MIN_VISIBLE: Final = 0.25  # share of a box inside its tile: boxes with less are dropped
MIN_SIDE: Final = 3.0  # pixels of the shorter side: smaller boxes are dropped


@dataclass(frozen=True, slots=True)
class Sample:
    image: Pixels  # [S, S, 3] RGB
    boxes: NDArray[np.float32] | None  # [B, 5]: class, x1, y1, x2, y2 in pixels; None: unlabelled


class Composer:
    """Composes samples from a pack; each thread needs its own random generator.

    plain: one photo in each sample, mostly near the scale at which it fits, as the finished
    detector will see it.
    """

    def __init__(self, pack: Pack, plain: bool = False) -> None:
        self._pack = pack
        self._mosaic = 0.0 if plain else MOSAIC
        self._mix = 0.0 if plain else MIX
        self._paste_share = 0.0 if plain else PASTE
        self._wide = PLAIN_WIDE if plain else WIDE
        self._labelled = sorted(pack.labels)
        weights = draw_weights(pack)
        self._cumulative = np.cumsum(weights) / weights.sum()

    def sample(self, rng: np.random.Generator, size: int) -> Sample:
        image = self._compose(rng, size)
        if rng.random() < self._mix:
            share = rng.beta(8, 8)
            image = cv2.addWeighted(image, share, self._compose(rng, size), 1 - share, 0)
        if rng.random() < self._paste_share:
            self._paste(rng, image)
        return Sample(_recolour(rng, image), None)

    def labelled_sample(self, rng: np.random.Generator, size: int) -> Sample:
        """One labelled photo, or a mosaic of four."""
        tiles = _tiles(rng, size) if rng.random() < self._mosaic else [(0, 0, size, size)]
        image = np.full((size, size, 3), PAD_GREY, np.uint8)
        boxes = []
        for tile in tiles:
            number = int(rng.choice(self._labelled))
            matrix = self._place(rng, image, tile, number, cover=len(tiles) > 1)
            boxes.append(_moved_boxes(self._pack.labels[number], matrix, tile))
        return Sample(_recolour(rng, image), np.concatenate(boxes))

    def _draw(self, rng: np.random.Generator) -> int:
        return int(np.searchsorted(self._cumulative, rng.random(), side="right"))

    def _compose(self, rng: np.random.Generator, size: int) -> Pixels:
        mosaic = rng.random() < self._mosaic
        image = np.full((size, size, 3), PAD_GREY, np.uint8)
        for tile in _tiles(rng, size) if mosaic else [(0, 0, size, size)]:
            self._place(rng, image, tile, self._draw(rng), cover=mosaic)
        return image

    def _paste(self, rng: np.random.Generator, image: Pixels) -> None:
        size = image.shape[0]
        width, height = (int(size * rng.uniform(0.2, 0.5)) for _ in range(2))
        left, top = int(rng.integers(size - width)), int(rng.integers(size - height))
        tile = (left, top, left + width, top + height)
        self._place(rng, image, tile, self._draw(rng), cover=True)

    def _place(
        self,
        rng: np.random.Generator,
        image: Pixels,
        tile: tuple[int, int, int, int],
        number: int,
        cover: bool,
    ) -> NDArray[np.float64]:
        """Draw a photo into a tile; returns the affine map f64[2,3] from 0..1 to pixels."""
        left, top, right, bottom = tile
        tile_width, tile_height = right - left, bottom - top
        height, width = self._pack.places[number, 0, 1:]
        if cover:
            scale = max(tile_width / width, tile_height / height) * _log_uniform(rng, COVER_SCALES)
        else:
            scales = WIDE_SCALES if rng.random() < self._wide else NEAR_SCALES
            scale = min(tile_width / width, tile_height / height) * _log_uniform(rng, scales)
        photo = self._pack.photo(number, 1 if scale <= 0.6 else 0)
        stretch = np.exp(rng.uniform(-STRETCH, STRETCH) / 2)
        drawn_w, drawn_h = width * scale * stretch, height * scale / stretch
        x, y = (rng.uniform(*sorted((0.0, side - drawn)))
                for side, drawn in ((tile_width, drawn_w), (tile_height, drawn_h)))  # fmt: skip
        mirrored = rng.random() < MIRROR
        unit = np.array([[-drawn_w if mirrored else drawn_w, 0, x + drawn_w * mirrored],
                         [0, drawn_h, y]])  # fmt: skip
        pixels = unit.copy()
        pixels[:, 0] /= photo.shape[1]
        pixels[:, 1] /= photo.shape[0]
        pixels[:, 2] += (pixels[:, 0] + pixels[:, 1]) / 2 - 0.5  # pixel centres, not corners
        cv2.warpAffine(
            photo, pixels, (tile_width, tile_height), image[top:bottom, left:right],
            cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, (PAD_GREY,) * 3,
        )  # fmt: skip
        unit[:, 2] += left, top
        return unit


def draw_weights(pack: Pack) -> NDArray[np.float64]:
    """How often each photo is drawn, f64[P]: LVIS's repeat factor of its rarest class.

    It is the square root of FREQUENT over the share of photos with the class (arXiv 1908.03195).
    """
    if pack.class_scores is None:
        return np.ones(len(pack))
    detected = pack.class_scores > FOUND
    share = detected.mean(axis=0).clip(min=1e-9)
    boost = np.sqrt(FREQUENT / share).clip(1, MAX_BOOST)
    return np.where(detected.any(axis=1), (detected * boost).max(axis=1), EMPTY_WEIGHT)


def _tiles(rng: np.random.Generator, size: int) -> list[tuple[int, int, int, int]]:
    x, y = (int(size * rng.uniform(0.25, 0.75)) for _ in range(2))
    return [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _moved_boxes(
    labels: NDArray[np.float32], matrix: NDArray[np.float64], tile: tuple[int, int, int, int]
) -> NDArray[np.float32]:
    """Boxes after the affine map, clipped to the tile; those mostly outside or tiny are dropped."""
    x = np.sort(labels[:, [1, 3]] * matrix[0, 0] + matrix[0, 2], axis=1)
    y = np.sort(labels[:, [2, 4]] * matrix[1, 1] + matrix[1, 2], axis=1)
    area = (x[:, 1] - x[:, 0]) * (y[:, 1] - y[:, 0])
    x = x.clip(tile[0], tile[2])
    y = y.clip(tile[1], tile[3])
    width, height = x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]
    kept = (width * height > MIN_VISIBLE * area) & (np.minimum(width, height) > MIN_SIDE)
    boxes = np.stack((labels[:, 0], x[:, 0], y[:, 0], x[:, 1], y[:, 1]), axis=1)
    return boxes[kept].astype(np.float32)


def _recolour(rng: np.random.Generator, image: Pixels) -> Pixels:
    """Turn the hue, scale the distance to grey, scale all: one matrix for all pixels."""
    hue, saturation, value = rng.uniform(-1, 1, 3) * (HUE, SATURATION, VALUE)
    turn, _ = cv2.Rodrigues(np.full(3, hue / 3**0.5))  # around the axis of greys
    grey = np.tile(LUMINANCE, (3, 1))
    matrix = (1 + value) * (grey + (1 + saturation) * turn @ (np.eye(3) - grey))
    return cv2.transform(image, matrix)
