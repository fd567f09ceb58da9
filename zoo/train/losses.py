"""The losses: distillation from the teacher, imitation of its feature maps, and labelled boxes.

Every term is a sum over anchors divided by the expected number of positive ones, as in YOLOX.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.train import network
from zoo.train.network import Features, Predictions, decode
from zoo.train.teacher import MAPS, TeacherOutput

BOX_WEIGHT: Final = 5.0  # of 1 - GIoU (YOLOX's choice)
OFFSET_WEIGHT: Final = 1.0  # of the L1 distance between undecoded boxes
MIN_OBJECTNESS: Final = 0.005  # of the teacher, below which its class and box are ignored
CANDIDATES: Final = 10  # anchors assigned to each labelled box
IOU_POWER: Final = 6  # of the alignment score ** 0.5 * IoU ** 6 (TOOD, arXiv 2108.07755)
SCORE_POWER: Final = 0.5


def distillation(
    student: Predictions, teacher: TeacherOutput, corners: Tensor, strides: Tensor
) -> Tensor:
    """Objectness on all anchors; classes and box weighted by the teacher's objectness."""
    target = teacher.objectness
    total = target.sum().clamp(min=1)
    objectness = _cross_entropy(student.objectness, target).sum() / total
    used = target > MIN_OBJECTNESS
    if not used.any():
        return objectness
    weight = target[used]
    classes = _cross_entropy(student.classes[used], teacher.classes[used]).sum(dim=-1)
    classes = (classes * weight).sum() / total
    score = weight * teacher.classes[used].amax(dim=-1)
    anchors = [part.expand(*target.shape, -1)[used] for part in (corners, strides)]
    mine, theirs = student.boxes[used], teacher.boxes[used]
    distance = 1 - _giou(decode(mine, *anchors), decode(theirs, *anchors))
    offset = functional.l1_loss(mine, theirs, reduction="none").sum(dim=-1)
    boxes = BOX_WEIGHT * distance + OFFSET_WEIGHT * offset
    return objectness + classes + (boxes * score).sum() / score.sum()


class Imitation(nn.Module):
    """Mean squared distance between the teacher's standardised maps and the student's projected.

    FitNets' hints (arXiv 1412.6550) at six layers; used in training only.
    """

    def __init__(self) -> None:
        super().__init__()
        pairs = list(zip((*network.STAGES, *network.NECK), MAPS.values(), strict=True))
        self.projections = nn.ModuleList(nn.Conv2d(mine, theirs, 1) for mine, theirs in pairs)
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(theirs, affine=False, momentum=0.01) for _, theirs in pairs
        )

    def forward(self, features: Features, teacher: TeacherOutput) -> Tensor:
        mine = (*features.backbone, *features.neck)
        parts = zip(self.projections, self.norms, mine, teacher.maps, strict=True)
        return torch.stack(
            [
                functional.mse_loss(project(x.float()), standardise(y))
                for project, standardise, x, y in parts
            ]
        ).mean()


def supervision(
    student: Predictions, labels: list[Tensor], corners: Tensor, strides: Tensor
) -> Tensor:
    """The loss of the labelled samples; `labels` has f32[B,5] (class, corners) for each.

    Each box is assigned to the anchors inside it whose predictions align best with it (TOOD).
    """
    boxes = decode(student.boxes, corners, strides)
    target_objectness = torch.zeros_like(student.objectness)
    target_classes = torch.zeros_like(student.classes)
    total = student.boxes.new_zeros(())
    for number, rows in enumerate(labels):
        if not len(rows):
            continue
        owner, quality = _assign(
            boxes[number].detach(), student, number, rows, corners + strides / 2
        )
        (anchors,) = torch.nonzero(owner >= 0, as_tuple=True)
        mine = rows[owner[anchors]]
        target_objectness[number, anchors] = quality[anchors]
        target_classes[number, anchors, mine[:, 0].long()] = quality[anchors]
        distance = 1 - _giou(boxes[number, anchors], mine[:, 1:])
        total = total + (BOX_WEIGHT * distance * quality[anchors]).sum()
    positives = target_objectness.sum().clamp(min=max(1, sum(map(len, labels))))
    objectness = _cross_entropy(student.objectness, target_objectness).sum()
    classes = (
        _cross_entropy(student.classes, target_classes).sum(dim=-1) * (target_objectness > 0)
    ).sum()
    return (objectness + classes + total) / positives


@torch.no_grad()
def _assign(
    boxes: Tensor, student: Predictions, number: int, labels: Tensor, centres: Tensor
) -> tuple[Tensor, Tensor]:
    """For each anchor: the row of the labels assigned to it, or -1, and its alignment, 0..1."""
    x, y = centres.T
    inside = (
        (x > labels[:, 1:2]) & (y > labels[:, 2:3]) & (x < labels[:, 3:4]) & (y < labels[:, 4:5])
    )
    iou = _iou(labels[:, None, 1:], boxes[None])[0]
    score = (
        student.objectness[number].sigmoid()
        * student.classes[number].sigmoid()[:, labels[:, 0].long()].T
    )
    aligned = score**SCORE_POWER * iou**IOU_POWER * inside
    best, anchors = aligned.topk(min(CANDIDATES, aligned.shape[1]), dim=1)
    chosen = torch.zeros_like(aligned).scatter_(1, anchors, best)
    rank, owner = chosen.max(dim=0)
    scale = (iou * (chosen > 0)).amax(dim=1) / chosen.amax(dim=1).clamp(min=1e-9)
    quality = (rank * scale[owner]).clamp(max=1)
    return torch.where(rank > 0, owner, -1), quality


def _cross_entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, probabilities, reduction="none")


def _iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union of boxes [...,4] (x1, y1, x2, y2), broadcast."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    union = (
        (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1) - common
    ).clamp(min=1e-6)
    return common / union, union


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (arXiv 1902.09630): negative for boxes that are apart."""
    iou, union = _iou(a, b)
    enclosing = (
        (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]))
        .prod(dim=-1)
        .clamp(min=1e-6)
    )
    return iou - (enclosing - union) / enclosing
