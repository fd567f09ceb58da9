"""Accuracy of every variant of a model folder on annotated images."""

import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from quantizer.config import AnnotatedDataset
from quantizer.errors import BadAnnotations
from quantizer.evaluation.detectors import open_variants
from service.inference.detector import Detector
from service.manifest import Manifest, read_manifest
from service.progress import Progress, ReportProgress
from service.vision.agreement import Agreement, agreement
from service.vision.detections import Detections
from service.vision.image import MAX_PIXELS, Photo, decode_image
from service.vision.input_size import InputSize
from service.vision.postprocess import Query

# The customary settings for COCO AP (YOLOv5's and YOLOv7's val.py; NMS IoU of YOLOX's eval).
AP_QUERY: Final = Query(conf=0.001, iou=0.65, max_det=300, multi_label=True)


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """COCO's averages of one class, 0..1, and how many objects of it are annotated."""

    ap: float
    ap50: float
    objects: int


@dataclass(frozen=True, slots=True)
class Accuracy:
    """COCO's bounding-box averages, 0..1."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    classes: Mapping[str, ClassAccuracy]  # those that have annotations


@dataclass(frozen=True, slots=True)
class Evaluation:
    """AP by variant; agreement with fp32 at the serving thresholds by variant."""

    model: str
    images: int
    variants: Mapping[str, Accuracy]
    agreement_with_fp32: Mapping[str, Agreement]


def evaluate(
    folder: Path, images: Path, annotations: Path, threads: int, progress: ReportProgress
) -> Evaluation:
    """Run every variant of a model folder on every annotated image.

    Raises BadAnnotations, BadModelFolder, or the ServiceError of an image that cannot be decoded.
    """
    manifest = read_manifest(folder)
    with open_variants(folder, manifest, threads) as detectors:
        annotated = AnnotatedDataset(images, annotations)
        return evaluate_detectors(detectors, manifest, annotated, progress)


def evaluate_detectors(
    detectors: Mapping[str, Detector],
    manifest: Manifest,
    annotated: AnnotatedDataset,
    progress: ReportProgress,
    at_once: int = 1,
    decode: Callable[[bytes, int, InputSize], Photo] = decode_image,
) -> Evaluation:
    """The same for any detectors of the manifest's classes, `at_once` of them in threads.

    Without a detector named fp32, agreement is not measured. `decode` is called as `decode_image`.
    """
    coco, categories = _read_annotations(annotated, manifest)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in detectors}
    at_serving: dict[str, list[Detections]] = {name: [] for name in detectors}

    def detect(name: str, photo: Photo, image_id: int) -> None:
        detector = detectors[name]
        prepared = detector.preprocess(photo)
        raw = detector.infer(prepared)
        detections = detector.postprocess(raw, prepared, AP_QUERY)
        results[name] += _coco_results(detections, image_id, categories)
        if "fp32" in detectors:
            at_serving[name].append(detector.postprocess(raw, prepared, Query()))

    progress(Progress("evaluate", 0, len(coco.imgs)))
    with ThreadPoolExecutor(at_once) as pool:
        for done, (image_id, record) in enumerate(coco.imgs.items(), start=1):
            data = (annotated.images / record["file_name"]).read_bytes()
            photo = decode(data, MAX_PIXELS, manifest.size)
            for detected in [pool.submit(detect, name, photo, image_id) for name in detectors]:
                detected.result()
            progress(Progress("evaluate", done, len(coco.imgs)))
    return Evaluation(
        model=manifest.name,
        images=len(coco.imgs),
        variants={name: _accuracy(coco, rows) for name, rows in results.items()},
        agreement_with_fp32={
            name: agreement(list(zip(at_serving["fp32"], detections, strict=True)))
            for name, detections in at_serving.items()
            if name != "fp32" and "fp32" in at_serving
        },
    )


def _read_annotations(
    annotated: AnnotatedDataset, manifest: Manifest
) -> tuple[COCO, dict[int, int]]:
    """The annotations, and the category id of each class of the model that they annotate."""
    images, annotations = annotated.images, annotated.annotations
    try:
        with redirect_stdout(io.StringIO()):  # pycocotools prints
            coco = COCO(str(annotations))
        for box in coco.anns.values():  # pycocotools needs both keys, which many tools leave out
            box.setdefault("iscrowd", 0)
            box.setdefault("area", box["bbox"][2] * box["bbox"][3])
        names = [record["file_name"] for record in coco.imgs.values()]
    except (OSError, ValueError, LookupError, TypeError, AssertionError) as exc:
        reason = f"no {exc}" if isinstance(exc, KeyError) else exc
        raise BadAnnotations(
            f"{annotations} cannot be read as COCO JSON: {reason}; --annotations FILE names one"
        ) from exc
    missing = [name for name in names if not (images / name).is_file()]
    if missing or not coco.imgs:
        raise BadAnnotations(
            f"{len(missing)} of {len(coco.imgs)} annotated images are not in {images}"
            + (f", {missing[0]} for one" if missing else "")
            + "; --images DIR is their folder"
        )
    by_name = {category["name"]: key for key, category in coco.cats.items()}
    categories = {
        index: by_name[name] for index, name in enumerate(manifest.class_names) if name in by_name
    }
    if not categories:
        raise BadAnnotations(
            f"no class of the model ({', '.join(manifest.class_names[:5])}, ...) is a category "
            f"of {annotations} ({', '.join(list(by_name)[:5])}, ...); a build with --classes "
            "FILE names them as the annotations do"
        )
    return coco, categories


def _coco_results(
    detections: Detections, image_id: int, categories: Mapping[int, int]
) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            "category_id": categories[int(class_id)],
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "score": float(score),
        }
        for (x1, y1, x2, y2), score, class_id in zip(
            detections.xyxy, detections.scores, detections.class_ids, strict=True
        )
        if int(class_id) in categories
    ]


def _accuracy(coco: COCO, results: list[dict[str, Any]]) -> Accuracy:
    if not results:
        return Accuracy(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, {})
    with redirect_stdout(io.StringIO()):
        scored = COCOeval(coco, coco.loadRes(results), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    ap, ap50, ap75, small, medium, large = map(_rounded, scored.stats[:6])
    return Accuracy(ap, ap50, ap75, small, medium, large, _class_accuracies(coco, scored))


def _class_accuracies(coco: COCO, scored: COCOeval) -> dict[str, ClassAccuracy]:
    """From precision[IoU, recall, class, area, limit]; area 0 is every size, the last limit the
    largest."""
    accuracies = {}
    for column, category in enumerate(scored.params.catIds):
        objects = [box for box in coco.anns.values() if box["category_id"] == category]
        precision = scored.eval["precision"][:, :, column, 0, -1]
        if (precision > -1).any():  # -1 where the class has no object
            accuracies[coco.cats[category]["name"]] = ClassAccuracy(
                _rounded(precision.mean()),
                _rounded(precision[0].mean()),
                sum(not box["iscrowd"] for box in objects),
            )
    return accuracies


def _rounded(value: float) -> float:
    return round(max(float(value), 0.0), 4)  # pycocotools gives -1 where a size has no object
