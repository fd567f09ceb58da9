"""The boxes of image files, as the server answers them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel

from service.errors import ServiceError, VariantNotFound
from service.http.schemas import DetectAnswer, detect_answer
from service.inference.detector import Detector
from service.inference.results import Answer
from service.inference.timings import Stopwatch
from service.manifest import read_manifest
from service.vision.drawing import draw, encode
from service.vision.image import MAX_PIXELS, Photo, full_size
from service.vision.postprocess import Query


class ImageAnswer(DetectAnswer):
    """The server's answer for a file."""

    file: str


class ImageFailure(BaseModel):
    """A file that cannot be read, and the reason."""

    file: str
    error: str


def detect_images(
    folder: Path,
    images: Sequence[Path],
    variant: str | None,
    query: Query,
    save: Path | None,
    threads: int,
) -> Iterator[ImageAnswer | ImageFailure]:
    """Yield the answer to each image; with `save`, write a picture with its boxes there.

    Raises BadModelFolder, EngineFailed or VariantNotFound before the first image.
    """
    manifest = read_manifest(folder)
    name = variant or manifest.default
    if name not in manifest.variants:
        raise VariantNotFound(f"no variant {name!r}; there are: {', '.join(manifest.variants)}")
    detector = Detector.load(folder, manifest, name, threads)
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
    for image in images:
        try:
            data = image.read_bytes()
            photo, answer = _detect(detector, name, data, query)
            if save is not None:
                pixels = full_size(photo, data, MAX_PIXELS)
                drawn = draw(pixels, answer.detections, manifest.class_name)
                (save / f"{image.stem}.jpg").write_bytes(encode(drawn, "image/jpeg"))
        except (ServiceError, OSError) as exc:
            yield ImageFailure(file=str(image), error=str(exc))
            continue
        body = detect_answer(manifest, answer)
        yield ImageAnswer(file=str(image), **body.model_dump())
    detector.close()


def _detect(detector: Detector, variant: str, data: bytes, query: Query) -> tuple[Photo, Answer]:
    clock = Stopwatch()
    with clock.stage("decode"):
        photo = detector.decode(data, MAX_PIXELS)
    with clock.stage("preprocess"):
        prepared = detector.preprocess(photo)
    with clock.stage("infer"):
        raw = detector.infer(prepared)
    with clock.stage("postprocess"):
        detections = detector.postprocess(raw, prepared, query)
    return photo, Answer(variant, photo.width, photo.height, detections, clock.read())
