"""Decoders of JPEG compared: time and AP on the same photos, with the same detector.

    .venv/bin/python bench/jpeg.py [MODEL_FOLDER] --images DIR --annotations FILE \\
        [--variant int8] [--repeats 5]

The photos as they are, and enlarged to a camera's 1920 pixels. A library that can reduce a JPEG
while it decodes is asked for the factor that the server takes: 2 for 1920 pixels and a model of
640. Libraries that qyolo does not use are pinned in an environment under runs/. Decoding alone, and
decoding with the resize to the model's size, are timed with every decoder in turn, on one thread.
Prints means over the photos of the median milliseconds, and COCO AP.

The first row is the server's whole decoding: it reads the header with Pillow, counts scans and
applies the orientation as well.
"""

import io
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from PIL import Image

from bench.command_line import print_header, print_row, server_parser
from bench.overhead import QUALITY
from bench.peers.environments import environment
from bench.serving import model_folder
from quantizer.config import AnnotatedDataset
from quantizer.evaluation.accuracy import evaluate_detectors
from service.inference.detector import Detector
from service.manifest import Manifest, read_manifest
from service.vision.image import MAX_PIXELS, REDUCTIONS, Photo, Pixels, decode_image
from service.vision.input_size import InputSize
from service.vision.letterbox import Letterbox, Padding, resize_to_fit
from service.vision.preprocess import PREPROCESS

CAMERA: Final = 1920  # pixels of the longer side
PACKAGES: Final = (
    "ajpegli==1.0.0",
    "av==18.1.0",
    "imagecodecs==2026.3.6",
    "opencv-python-headless==5.0.0.93",
    "pyturbojpeg==2.6.1",
    "pyvips==3.2.0",
    "pyvips-binary==8.18.7",
)
LIBTURBOJPEG: Final = "turbojpeg==0.0.2"  # PyTurboJPEG has none; this wheel brings libjpeg-turbo 3


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A photo to decode at 1/`factor` of its size, for an input of `target` pixels."""

    data: bytes
    width: int
    height: int
    factor: int
    target: InputSize
    padding: Padding

    @classmethod
    def of(cls, data: bytes, manifest: Manifest) -> "Jpeg":
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
        shrinks = manifest.size.shrink(width, height)
        factor = next((each for each in REDUCTIONS if each <= shrinks), 1)
        padding = PREPROCESS[manifest.preprocess].padding
        return cls(data, width, height, factor, manifest.size, padding)

    @property
    def reduced(self) -> tuple[int, int]:
        """Height and width after decoding."""
        return -(-self.height // self.factor), -(-self.width // self.factor)

    @property
    def fitted(self) -> tuple[int, int]:
        """Width and height inside the input."""
        box = Letterbox.fit(self.width, self.height, self.target, self.padding)
        return box.width, box.height

    def file(self) -> io.BytesIO:
        return io.BytesIO(self.data)

    def photo(self, pixels: Pixels) -> Photo:
        """With pixels that a decoder returned; contiguous, as the server makes them."""
        return Photo(np.ascontiguousarray(pixels), self.width, self.height)


Decode = Callable[[Jpeg], Pixels]


def main() -> None:
    parser = server_parser(__doc__)
    parser.add_argument("--images", type=Path, required=True, help="images of the annotations")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO JSON")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    decoders = {"qyolo": _qyolo, **installed_decoders()}
    given = AnnotatedDataset(arguments.images, arguments.annotations)
    with model_folder(arguments.folder) as folder, TemporaryDirectory() as scratch:
        manifest = read_manifest(folder)
        sets = (enlarge(given, Path(scratch)), given)
        times = [
            milliseconds(decoders, photos_of(each, manifest), arguments.repeats) for each in sets
        ]
        detector = Detector.load(folder, manifest, arguments.variant)
        columns = ("decoding ms", "with resize", "AP")
        print_header("decoder", *(f"{CAMERA}: {each}" for each in columns), *columns)
        for name, decode in decoders.items():
            cells = []
            for annotated, timed in zip(sets, times, strict=True):
                ap = average_precision(detector, manifest, annotated, decode)
                cells += [*(f"{ms:.2f}" for ms in timed[name]), f"{ap:.4f}"]
            print_row(name, *cells)
        detector.close()


def installed_decoders() -> Mapping[str, Decode]:
    """The decoders of bench/peers/jpeg_decoders.py, which needs packages of its own."""
    python = Path(environment("jpeg", *PACKAGES))
    sys.path += map(str, python.parents[1].glob("lib/python*/site-packages"))
    os.environ["VIPS_CONCURRENCY"] = "1"  # libvips reads it when it is imported
    (library,) = Path(environment("libturbojpeg", LIBTURBOJPEG)).parents[1].rglob("libturbojpeg*")
    decoders: Mapping[str, Decode] = import_module("bench.peers.jpeg_decoders").decoders(library)
    return decoders


def _qyolo(jpeg: Jpeg) -> Pixels:
    return decode_image(jpeg.data, MAX_PIXELS, jpeg.target).pixels


def photos_of(annotated: AnnotatedDataset, manifest: Manifest) -> list[Jpeg]:
    records = json.loads(annotated.annotations.read_text())["images"]
    paths = (annotated.images / record["file_name"] for record in records)
    return [Jpeg.of(path.read_bytes(), manifest) for path in paths]


def enlarge(annotated: AnnotatedDataset, out: Path) -> AnnotatedDataset:
    """The photos as JPEGs whose longer side is CAMERA, and annotations with boxes of that scale."""
    data_set = json.loads(annotated.annotations.read_text())
    scales = {}
    for record in data_set["images"]:
        with Image.open(annotated.images / record["file_name"]) as photo:
            scale = CAMERA / max(photo.size)
            size = (round(photo.width * scale), round(photo.height * scale))
            larger = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        larger.save(out / record["file_name"], "JPEG", quality=QUALITY)
        record["width"], record["height"] = size
        scales[record["id"]] = scale
    for box in data_set["annotations"]:
        scale = scales[box["image_id"]]
        box["bbox"] = [side * scale for side in box["bbox"]]
        box["area"] *= scale**2
    annotations = out / "annotations.json"
    annotations.write_text(json.dumps(data_set))
    return AnnotatedDataset(out, annotations)


def milliseconds(
    decoders: Mapping[str, Decode], photos: Sequence[Jpeg], repeats: int
) -> dict[str, tuple[float, float]]:
    """Of decoding, and of decoding with the resize; means over the photos of the medians."""
    medians: dict[str, list[tuple[float, float]]] = {name: [] for name in decoders}
    chance = random.Random(0)
    for jpeg in photos:
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in decoders}
        for _ in range(repeats):
            # Shuffled, since each leaves other data in the caches.
            for name, decode in chance.sample(list(decoders.items()), len(decoders)):
                start = time.perf_counter()
                photo = jpeg.photo(decode(jpeg))
                decoded = time.perf_counter()
                resize_to_fit(photo, jpeg.target, jpeg.padding)
                runs[name].append((decoded - start, time.perf_counter() - start))
        for name, each in runs.items():
            decoding, both = (statistics.median(seconds) for seconds in zip(*each, strict=True))
            medians[name].append((decoding, both))
    return {
        name: (
            1000 * statistics.fmean(decoding for decoding, _ in each),
            1000 * statistics.fmean(both for _, both in each),
        )
        for name, each in medians.items()
    }


def average_precision(
    detector: Detector, manifest: Manifest, annotated: AnnotatedDataset, decode: Decode
) -> float:
    def photo_of(data: bytes, _max_pixels: int, _target: InputSize) -> Photo:
        jpeg = Jpeg.of(data, manifest)
        return jpeg.photo(decode(jpeg))

    variants = {"detector": detector}
    found = evaluate_detectors(variants, manifest, annotated, lambda _: None, decode=photo_of)
    return found.variants["detector"].ap


if __name__ == "__main__":
    main()
