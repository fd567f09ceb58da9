"""What the student is told: to agree with the teacher everywhere, and with people where they spoke.

Every term is a sum over anchors divided by the expected number of objects' anchors, as in YOLOX.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.train import network
from zoo.train.network import Features, Predictions, decoded
from zoo.train.teacher import MAPS, Lesson

BOX_WEIGHT: Final = 5.0  # of 1 - GIoU (YOLOX's choice)
OFFSET_WEIGHT: Final = 1.0  # of the L1 distance between undecoded boxes
UNSEEN: Final = 0.005  # objectness below which the teacher's class and box say nothing
CANDIDATES: Final = 10  # anchors that learn one labelled box
IOU_POWER: Final = 6  # of the alignment score ** 0.5 * IoU ** 6 (TOOD, arXiv 2108.07755)
SCORE_POWER: Final = 0.5


def distillation(said: Predictions, lesson: Lesson, corners: Tensor, strides: Tensor) -> Tensor:
    """Objectness on every anchor; class and box weighted by how sure the teacher is of them."""
    sure = lesson.objectness
    total = sure.sum().clamp(min=1)
    objectness = _entropy(said.objectness, sure).sum() / total
    seen = sure > UNSEEN
    if not seen.any():
        return objectness
    weight = sure[seen]
    classes = _entropy(said.classes[seen], lesson.classes[seen]).sum(dim=-1)
    classes = (classes * weight).sum() / total
    score = weight * lesson.classes[seen].amax(dim=-1)
    places = [part.expand(*sure.shape, -1)[seen] for part in (corners, strides)]
    mine, theirs = said.boxes[seen], lesson.boxes[seen]
    apart = 1 - _giou(decoded(mine, *places), decoded(theirs, *places))
    offset = functional.l1_loss(mine, theirs, reduction="none").sum(dim=-1)
    boxes = BOX_WEIGHT * apart + OFFSET_WEIGHT * offset
    return objectness + classes + (boxes * score).sum() / score.sum()


class Imitation(nn.Module):
    """Mean squared distance between the teacher's maps, standardised, and the student's, projected.

    FitNets' hints (arXiv 1412.6550) at six places; used in training only.
    """

    def __init__(self) -> None:
        super().__init__()
        pairs = list(zip((*network.STAGES, *network.NECK), MAPS.values(), strict=True))
        self.projections = nn.ModuleList(nn.Conv2d(mine, theirs, 1) for mine, theirs in pairs)
        self.standards = nn.ModuleList(
            nn.BatchNorm2d(theirs, affine=False, momentum=0.01) for _, theirs in pairs
        )

    def forward(self, features: Features, lesson: Lesson) -> Tensor:
        mine = (*features.backbone, *features.neck)
        parts = zip(self.projections, self.standards, mine, lesson.maps, strict=True)
        return torch.stack(
            [
                functional.mse_loss(project(x.float()), standard(y))
                for project, standard, x, y in parts
            ]
        ).mean()


def supervision(said: Predictions, truth: list[Tensor], corners: Tensor, strides: Tensor) -> Tensor:
    """The ordinary loss of the labelled samples: truth has f32[B,5] (class, corners) for each.

    Each box goes to the anchors inside it whose predictions are best aligned with it (TOOD).
    """
    boxes = decoded(said.boxes, corners, strides)
    wanted = torch.zeros_like(said.objectness)
    named = torch.zeros_like(said.classes)
    total = said.boxes.new_zeros(())
    for number, labels in enumerate(truth):
        if not len(labels):
            continue
        owner, quality = _assigned(
            boxes[number].detach(), said, number, labels, corners + strides / 2
        )
        (anchors,) = torch.nonzero(owner >= 0, as_tuple=True)
        mine = labels[owner[anchors]]
        wanted[number, anchors] = quality[anchors]
        named[number, anchors, mine[:, 0].long()] = quality[anchors]
        apart = 1 - _giou(boxes[number, anchors], mine[:, 1:])
        total = total + (BOX_WEIGHT * apart * quality[anchors]).sum()
    positives = wanted.sum().clamp(min=max(1, sum(map(len, truth))))
    objectness = _entropy(said.objectness, wanted).sum()
    classes = (_entropy(said.classes, named).sum(dim=-1) * (wanted > 0)).sum()
    return (objectness + classes + total) / positives


@torch.no_grad()
def _assigned(
    boxes: Tensor, said: Predictions, number: int, labels: Tensor, centres: Tensor
) -> tuple[Tensor, Tensor]:
    """Per anchor: the row of the labels that it learns (or -1), and how well it fits, 0..1."""
    x, y = centres.T
    inside = (
        (x > labels[:, 1:2]) & (y > labels[:, 2:3]) & (x < labels[:, 3:4]) & (y < labels[:, 4:5])
    )
    iou = _overlap(labels[:, None, 1:], boxes[None])[0]
    score = (
        said.objectness[number].sigmoid() * said.classes[number].sigmoid()[:, labels[:, 0].long()].T
    )
    aligned = score**SCORE_POWER * iou**IOU_POWER * inside
    best, anchors = aligned.topk(min(CANDIDATES, aligned.shape[1]), dim=1)
    chosen = torch.zeros_like(aligned).scatter_(1, anchors, best)
    rank, owner = chosen.max(dim=0)
    scale = (iou * (chosen > 0)).amax(dim=1) / chosen.amax(dim=1).clamp(min=1e-9)
    quality = (rank * scale[owner]).clamp(max=1)
    return torch.where(rank > 0, owner, -1), quality


def _entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, probabilities, reduction="none")


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and union of boxes x1, y1, x2, y2 that broadcast."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    union = (
        (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1) - common
    ).clamp(min=1e-6)
    return common / union, union


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (arXiv 1902.09630): falls on below 0 when boxes do not touch."""
    iou, union = _overlap(a, b)
    around = (
        (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2]))
        .prod(dim=-1)
        .clamp(min=1e-6)
    )
    return iou - (around - union) / around
