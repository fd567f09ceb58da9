"""Endless batches of training samples, composed in worker processes while the last one is learned.

number of a sample -> its own random generator -> Composer -> batch of tensors
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.train.augment import Composer, Sample
from zoo.train.pack import Pack


@dataclass(frozen=True, slots=True)
class Batch:
    images: Tensor  # u8[N,S,S,3] RGB
    boxes: list[Tensor]  # f32[B,5] (class, corners in pixels) of the first samples, the labelled

    @classmethod
    def of(cls, samples: list[Sample]) -> Self:
        images = torch.from_numpy(np.stack([sample.image for sample in samples]))
        return cls(images, [torch.from_numpy(s.boxes) for s in samples if s.boxes is not None])

    def to(self, device: torch.device) -> Self:
        boxes = [rows.to(device) for rows in self.boxes]
        return type(self)(self.images.to(device, non_blocking=True), boxes)

    def inputs(self) -> Tensor:
        """The student's input, f32[N,3,S,S], RGB, 0..1."""
        return self.images.permute(0, 3, 1, 2).float() / 255


class Samples(Dataset[Sample]):
    """Sample n of a pack is the same in every run; each process opens the pack itself."""

    def __init__(self, pack: Path, size: int, plain: bool = False) -> None:
        self._pack = pack
        self._size = size
        self._plain = plain
        self._composer: Composer | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What other processes get: the pixels of an open pack would be copied."""
        return {**self.__dict__, "_composer": None}

    def __getitem__(self, key: tuple[int, bool]) -> Sample:
        """The sample of a number, of labelled photos or of all."""
        number, labelled = key
        if self._composer is None:
            cv2.setNumThreads(1)
            self._composer = Composer(Pack.open(self._pack), self._plain)
        compose = self._composer.labelled_sample if labelled else self._composer.sample
        return compose(np.random.default_rng(number), self._size)

    def batches(self, first: int, batch: int, labelled: int, workers: int) -> Iterator[Batch]:
        """Endless batches from sample `first` on; the first ones of each batch are labelled."""
        keys = ([(n + i, i < labelled) for i in range(batch)] for n in count(first, batch))
        yield from DataLoader(
            self, batch_sampler=keys, collate_fn=Batch.of, num_workers=workers,
            multiprocessing_context="forkserver" if workers else None,
        )  # fmt: skip
