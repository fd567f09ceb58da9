"""qyolo-nano: a compact YOLO in PyTorch. Image -> backbone -> path aggregation -> decoupled heads.

Made for int8 on small machines: dense 3x3 convolutions (depthwise ones lose accuracy in int8 and
run no faster), SiLU, and no operator but Conv, SiLU, Add, Concat, MaxPool and Resize.
"""

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES: Final = 80
STRIDES: Final = (8, 16, 32)
STEM: Final = 32  # channels at stride 4
STAGES: Final = (64, 128, 192)  # channels at strides 8, 16, 32
DEPTHS: Final = (1, 2, 1)  # bottlenecks at those strides
NECK: Final = (48, 96, 128)  # channels of the aggregated maps
HEAD: Final = 48
PRIOR: Final = 0.01  # initial probability everywhere (RetinaNet, arXiv 1708.02002)


class Features(NamedTuple):
    """Feature maps at strides 8, 16, 32, which imitate the teacher's."""

    backbone: tuple[Tensor, ...]
    neck: tuple[Tensor, ...]


class Predictions(NamedTuple):
    """Undecoded, for each anchor: all cells of stride 8, then 16, then 32, row by row."""

    boxes: Tensor  # [N, A, 4]: centre offset from the cell's corner, log size; in strides
    objectness: Tensor  # [N, A]: logits
    classes: Tensor  # [N, A, 80]: logits


class ConvUnit(nn.Sequential):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            nn.SiLU(inplace=True),
        )


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with or without a shortcut."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels, 3)
        self.second = ConvUnit(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        return x + y if self.shortcut else y


class PartialStage(nn.Module):
    """Cross-stage partial block (arXiv 1911.11929): bottlenecks on half of the channels."""

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.enter = ConvUnit(inputs, 2 * half)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(depth)))
        self.merge = ConvUnit(2 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        direct, deep = self.enter(x).chunk(2, dim=1)
        return self.merge(torch.cat((direct, self.blocks(deep)), dim=1))


class PoolPyramid(nn.Module):
    """SPPF: three 5x5 max pools in sequence equal pools of 5x5, 9x9 and 13x13."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvUnit(channels, channels // 2)
        self.merge = ConvUnit(channels * 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.enter(x)]
        for _ in range(3):
            maps.append(functional.max_pool2d(maps[-1], 5, 1, 2))
        return self.merge(torch.cat(maps, dim=1))


class Backbone(nn.Module):
    """The stem has stride 4: maps at stride 2 would take half of the time of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvUnit(3, STEM, 6, 4), ConvUnit(STEM, STEM, 3))
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvUnit(before, after, 3, 2), PartialStage(after, after, depth, shortcut=True)
            )
            for before, after, depth in zip((STEM, *STAGES[:-1]), STAGES, DEPTHS, strict=True)
        )
        self.pyramid = PoolPyramid(STAGES[-1])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1], maps[2], self.pyramid(maps[3])


class Neck(nn.Module):
    """Path aggregation (arXiv 1803.01534): coarse to fine, then fine to coarse."""

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = NECK
        self.lateral5 = ConvUnit(STAGES[-1], middle)
        self.down4 = PartialStage(middle + STAGES[1], middle, 1, shortcut=False)
        self.lateral4 = ConvUnit(middle, fine)
        self.down3 = PartialStage(fine + STAGES[0], fine, 1, shortcut=False)
        self.reduce3 = ConvUnit(fine, fine, 3, 2)
        self.up4 = PartialStage(fine + fine, middle, 1, shortcut=False)
        self.reduce4 = ConvUnit(middle, middle, 3, 2)
        self.up5 = PartialStage(middle + middle, coarse, 1, shortcut=False)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> tuple[Tensor, ...]:
        p5 = self.lateral5(c5)
        p4 = self.lateral4(self.down4(torch.cat((_upsample(p5), c4), dim=1)))
        n3 = self.down3(torch.cat((_upsample(p4), c3), dim=1))
        n4 = self.up4(torch.cat((self.reduce3(n3), p4), dim=1))
        n5 = self.up5(torch.cat((self.reduce4(n4), p5), dim=1))
        return n3, n4, n5


def _upsample(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Head(nn.Module):
    """The decoupled head of one level (arXiv 2107.08430): classes, and box with objectness."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = ConvUnit(channels, HEAD)
        self.classes = nn.Sequential(ConvUnit(HEAD, HEAD, 3), nn.Conv2d(HEAD, CLASSES, 1))
        self.place = ConvUnit(HEAD, HEAD, 3)
        self.boxes = nn.Conv2d(HEAD, 4, 1)
        self.objectness = nn.Conv2d(HEAD, 1, 1)
        for logits in (self.classes[1], self.objectness):
            nn.init.constant_(logits.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(x)
        place = self.place(x)
        return self.boxes(place), self.objectness(place), self.classes(x)


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.neck = Neck()
        self.heads = nn.ModuleList(Head(channels) for channels in NECK)

    def forward(self, images: Tensor) -> tuple[Predictions, Features]:
        """images f32[N,3,S,S], RGB, 0..1."""
        backbone = self.backbone(images)
        neck = self.neck(*backbone)
        levels = [head(x) for head, x in zip(self.heads, neck, strict=True)]
        boxes, objectness, classes = (
            torch.cat([part.flatten(2) for part in parts], dim=2).transpose(1, 2)
            for parts in zip(*levels, strict=True)
        )
        return Predictions(boxes, objectness[..., 0], classes), Features(backbone, neck)


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cells(size: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """The corner f32[A,2] (pixels) and the stride f32[A,1] of every anchor of an SxS image."""
    corners, strides = [], []
    for stride in STRIDES:
        line = torch.arange(size // stride, device=device, dtype=torch.float32)
        y, x = torch.meshgrid(line, line, indexing="ij")
        corner = torch.stack((x, y), dim=-1).reshape(-1, 2) * stride
        corners.append(corner)
        strides.append(torch.full_like(corner[:, :1], stride))
    return torch.cat(corners), torch.cat(strides)


def decode(boxes: Tensor, corners: Tensor, strides: Tensor) -> Tensor:
    """Undecoded boxes [..., A, 4] -> corners x1, y1, x2, y2 in pixels."""
    centre = boxes[..., :2] * strides + corners
    half = boxes[..., 2:].clamp(max=8).exp() * strides / 2
    return torch.cat((centre - half, centre + half), dim=-1)
