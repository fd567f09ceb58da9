"""The JSON bodies of all responses that are not problems."""

from dataclasses import asdict
from typing import Literal
from urllib.parse import quote

import numpy as np
from pydantic import BaseModel

from service.inference.models import Model, Models
from service.inference.reload import Change
from service.inference.results import Answer
from service.inference.timings import Stage, Timings
from service.lifecycle import State
from service.manifest import Manifest, Precision, Runtime
from service.recalibration import State as RecalibrationState
from service.vision.agreement import match
from service.vision.detections import Detections
from service.vision.heads import HeadName
from service.vision.preprocess import PreprocessName

XYXY = tuple[float, float, float, float]


class ImageSize(BaseModel):
    width: int
    height: int


class Box(BaseModel):
    """One detection; `box` is left, top, right, bottom in pixels of the source image."""

    box: XYXY
    score: float
    class_id: int
    class_name: str


class DetectAnswer(BaseModel):
    """The boxes of one image, best first."""

    model: str
    variant: str
    image: ImageSize
    detections: list[Box]
    timings_ms: dict[Stage, float]


class Side(BaseModel):
    """One of the two variants that are compared."""

    variant: str
    boxes: int
    timings_ms: dict[Stage, float]


class Pair(BaseModel):
    """Two boxes of one class that overlap, one of each variant."""

    class_id: int
    class_name: str
    iou: float
    score_a: float
    score_b: float
    box_a: XYXY
    box_b: XYXY


class CompareAnswer(BaseModel):
    """Two variants on one image; the means are null when no boxes match."""

    model: str
    image: ImageSize
    a: Side
    b: Side
    matched: list[Pair]
    only_a: list[Box]
    only_b: list[Box]
    mean_iou: float | None
    mean_score_difference: float | None
    max_score_difference: float | None


class VariantInfo(BaseModel):
    name: str
    runtime: Runtime
    precision: Precision
    device: str  # cpu, gpu, or another device of OpenVINO's
    default: bool
    share: float  # of the requests that name no variant
    shadow: float  # share of the other variants' images that it infers as the shadow
    rejected: str | None  # why it cannot be the default: it lost too much accuracy
    detect: str  # the path of its endpoint


class ServedModel(BaseModel):
    """One of the models of this server; the first answers requests that name none."""

    model: str
    default: str
    loaded: bool  # else the next request for it loads it
    detect: str  # the path of its endpoint


class ModelInfo(BaseModel):
    """A model and its variants, and all models that are served."""

    model: str
    default: str
    device: str
    size: int  # the longer side of the input image
    width: int
    height: int
    head: HeadName
    preprocess: PreprocessName
    class_names: tuple[str, ...]
    source_sha256: str
    created: str
    variants: list[VariantInfo]
    models: list[ServedModel]


class ChangeAnswer(BaseModel):
    """A new version of a model, compared with the one that was served."""

    model: str
    switched: bool  # whether the new version is served
    created: str  # the new version, UTC, ISO 8601
    replaces: str  # the version before it
    images: int  # on which both were compared
    boxes: int  # of both on those images
    agreement: float | None  # of the boxes, 0 to 1; null: nothing could be compared
    served_with_fp32: float | None  # the served version with fp32, if both are of one float model
    new_with_fp32: float | None  # the new version with fp32


class RecalibrationAnswer(BaseModel):
    """A build of a model that is calibrated on its collected images."""

    model: str
    state: RecalibrationState
    phase: str | None = None  # of the build
    done: int | None = None
    total: int | None = None
    detail: str | None = None  # why it failed
    change: ChangeAnswer | None = None  # the comparison, once it is made


class Alive(BaseModel):
    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """The server's state; while it builds, the phase and how much of it is done."""

    status: State
    phase: str | None = None
    done: int | None = None
    total: int | None = None
    detail: str | None = None


def change_answer(change: Change) -> ChangeAnswer:
    fields = asdict(change)
    compared = fields.pop("compared")
    return ChangeAnswer(**fields, **compared)


def detect_answer(manifest: Manifest, answer: Answer) -> DetectAnswer:
    return DetectAnswer(
        model=manifest.name,
        variant=answer.variant,
        image=ImageSize(width=answer.width, height=answer.height),
        detections=boxes(manifest, answer.detections),
        timings_ms=_milliseconds(answer.timings),
    )


def compare_answer(manifest: Manifest, a: Answer, b: Answer) -> CompareAnswer:
    pairs = match(a.detections, b.detections)
    ours, theirs = a.detections.take(pairs.a), b.detections.take(pairs.b)
    differences = abs(ours.scores - theirs.scores)
    any_pair = len(differences) > 0
    return CompareAnswer(
        model=manifest.name,
        image=ImageSize(width=a.width, height=a.height),
        a=_side(a),
        b=_side(b),
        matched=[
            Pair(
                class_id=one.class_id,
                class_name=one.class_name,
                iou=round(float(iou), 4),
                score_a=one.score,
                score_b=other.score,
                box_a=one.box,
                box_b=other.box,
            )
            for one, other, iou in zip(
                boxes(manifest, ours), boxes(manifest, theirs), pairs.iou, strict=True
            )
        ],
        only_a=boxes(manifest, a.detections.take(pairs.only_a)),
        only_b=boxes(manifest, b.detections.take(pairs.only_b)),
        mean_iou=round(float(pairs.iou.mean()), 4) if any_pair else None,
        mean_score_difference=round(float(differences.mean()), 4) if any_pair else None,
        max_score_difference=round(float(differences.max()), 4) if any_pair else None,
    )


def model_info(models: Models, model: Model) -> ModelInfo:
    manifest, experiment = model.manifest, model.experiment
    # A variant of the first model needs no model's name.
    of = "" if model is models.first else f"{quote(model.name)}:"
    return ModelInfo(
        model=manifest.name,
        **manifest.model_dump(
            include=ModelInfo.model_fields.keys() - {"size", "variants", "models"}
        ),
        size=manifest.size.longest,
        width=manifest.size.width,
        height=manifest.size.height,
        variants=[
            VariantInfo(
                name=name,
                runtime=variant.runtime,
                precision=variant.precision,
                device=manifest.device_of(name),
                default=name == manifest.default,
                share=experiment.share(name, manifest.default),
                shadow=experiment.shadow_share(name),
                rejected=manifest.rejected.get(name),
                detect=f"/v1/models/{of}{name}/detect",
            )
            for name, variant in manifest.variants.items()
        ],
        models=[
            ServedModel(
                model=each.name,
                default=each.manifest.default,
                loaded=each.version is not None,
                detect=f"/v1/models/{quote(each.name)}/detect",
            )
            for each in models
        ],
    )


def boxes(manifest: Manifest, detections: Detections) -> list[Box]:
    """The boxes with their class names: pixels to 2 decimals, scores to 4."""
    # Of float32 this is exactly what `round` returns for each number, in less time.
    xyxy = detections.xyxy.astype(np.float64).round(2)
    scores = detections.scores.astype(np.float64).round(4)
    rows = zip(*(each.tolist() for each in (xyxy, scores, detections.class_ids)), strict=True)
    return [
        Box(box=box, score=score, class_id=class_id, class_name=manifest.class_name(class_id))
        for box, score, class_id in rows
    ]


def _side(answer: Answer) -> Side:
    return Side(
        variant=answer.variant,
        boxes=len(answer.detections),
        timings_ms=_milliseconds(answer.timings),
    )


def _milliseconds(timings: Timings) -> dict[Stage, float]:
    return {stage: round(seconds * 1000, 3) for stage, seconds in timings.items()}
