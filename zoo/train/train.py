"""Train qyolo-nano by dense distillation; a run continues from its checkpoint.

pack -> (compose -> teacher -> student -> losses) x steps -> checkpoint with the moving average
"""

import argparse
import copy
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from zoo.train.augment import Composer, Sample
from zoo.train.load_onnx import load_onnx
from zoo.train.losses import Imitation, distillation, supervision
from zoo.train.muon import Muon
from zoo.train.network import Detector, cells
from zoo.train.pack import Pack
from zoo.train.teacher import Teacher

WARM_UP: Final = 300  # steps
FINAL_RATE: Final = 0.02  # the last learning rate, as a share of the first
AVERAGE_DECAY: Final = 0.999  # of the moving average, after its warm-up
IMITATION_WEIGHT: Final = 2.0
SUPERVISION_WEIGHT: Final = 0.2
NORM_SAMPLES: Final = 64  # that set the batch norms of a loaded ONNX file
CHECKPOINT_S: Final = 120.0
REPORT_STEPS: Final = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Its length is a time, because the speed of a shared machine varies."""

    pack: Path
    teacher: Path
    checkpoint: Path
    minutes: float
    size: int
    batch: int
    labelled: int  # labelled samples in each batch
    rate: float
    fade: bool  # whether the rate falls by a cosine until the end of the run
    start: Path | None  # an exported file to start from
    bf16: bool  # convolutions in bfloat16, for CPUs that have it


class Run:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pack = Pack.open(plan.pack)
        student = Detector() if plan.start is None else load_onnx(plan.start, self._norm_samples())
        self.student = student.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.imitation = Imitation()
        hidden = [w for w in self.student.parameters() if w.ndim == 4]
        others = [w for w in self.student.parameters() if w.ndim != 4]
        others += self.imitation.parameters()
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(hidden, plan.rate, momentum=0.95, weight_decay=0.05),
            torch.optim.AdamW(others, plan.rate, weight_decay=0.0),
        ]
        self.step = 0

    def restore(self) -> None:
        state: dict[str, Any] = torch.load(self.plan.checkpoint, weights_only=True)
        for name in ("student", "average", "imitation"):
            getattr(self, name).load_state_dict(state[name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]

    def save(self) -> None:
        state = {
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "imitation": self.imitation.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
        }
        part = self.plan.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.plan.checkpoint)

    def train(self) -> None:
        plan = self.plan
        pack = self.pack
        teacher = Teacher.load(plan.teacher, plan.size)
        corners, strides = cells(plan.size)
        print(f"{len(pack)} photos, {len(pack.labels)} labelled; from step {self.step}", flush=True)
        started = saved = reported = time.monotonic()
        losses: list[tuple[float, float, float]] = []
        for samples in _batches(Composer(pack), plan, seed=self.step):
            now = time.monotonic()
            done = now - started > 60 * plan.minutes
            if done or now - saved > CHECKPOINT_S:
                saved = now
                self.save()
            if done:
                return
            self._set_rate((now - started) / 60 / plan.minutes)
            losses.append(self._learn(samples, teacher, corners, strides))
            self.step += 1
            if len(losses) == REPORT_STEPS:
                distilled, imitated, labelled = np.mean(losses, axis=0)
                print(
                    f"step {self.step}, {(now - started) / 60:.1f} of {plan.minutes:g} min: "
                    f"distillation {distilled:.3f}, imitation {imitated:.3f}, "
                    f"labels {labelled:.3f}, "
                    f"{REPORT_STEPS * plan.batch / (now - reported):.0f} images/s",
                    flush=True,
                )
                reported = now
                losses.clear()

    def _norm_samples(self) -> Tensor:
        plan = replace(self.plan, batch=NORM_SAMPLES)
        return _as_input(next(_batches(Composer(self.pack), plan, seed=0)))

    def _learn(
        self, samples: list[Sample], teacher: Teacher, corners: Tensor, strides: Tensor
    ) -> tuple[float, float, float]:
        taught = teacher.predict([sample.image for sample in samples])
        with torch.autocast("cpu", torch.bfloat16, enabled=self.plan.bf16):
            output, features = self.student(_as_input(samples))
        output = type(output)(*(part.float() for part in output))
        distilled = distillation(output, taught, corners, strides)
        imitated = self.imitation(features, taught)
        labels = [torch.from_numpy(s.boxes) for s in samples if s.boxes is not None]
        first = type(output)(*(part[: len(labels)] for part in output))  # the labelled samples
        zero = distilled.new_zeros(())
        labelled = supervision(first, labels, corners, strides) if labels else zero
        loss = distilled + IMITATION_WEIGHT * imitated + SUPERVISION_WEIGHT * labelled
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.optimizers[1].param_groups[0]["params"], 10.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self._update_average()
        return distilled.item(), imitated.item(), labelled.item()

    def _set_rate(self, progress: float) -> None:
        rate = self.plan.rate * min(1.0, (self.step + 1) / WARM_UP)
        if self.plan.fade:
            rate *= FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * progress)) / 2
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(AVERAGE_DECAY, (1 + self.step) / (10 + self.step))
        mine = self.student.state_dict()
        for name, value in self.average.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(mine[name], 1 - decay)
            else:
                value.copy_(mine[name])


def _as_input(samples: list[Sample]) -> Tensor:
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    return images.permute(0, 3, 1, 2).float() / 255


def _batches(composer: Composer, plan: Plan, seed: int) -> Iterator[list[Sample]]:
    """Endless batches, labelled samples first; in two threads, as OpenCV releases the GIL."""
    roots = np.random.SeedSequence(seed)
    with ThreadPoolExecutor(2) as pool:
        while True:
            generators = [np.random.default_rng(s) for s in roots.spawn(plan.batch)]
            yield list(
                pool.map(
                    lambda pair: (
                        composer.labelled_sample(pair[1], plan.size)
                        if pair[0] < plan.labelled
                        else composer.sample(pair[1], plan.size)
                    ),
                    enumerate(generators),
                )
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path, help="folder that zoo.train.pack wrote")
    parser.add_argument("--teacher", type=Path, required=True, help="yolox_nano.onnx")
    parser.add_argument("--checkpoint", type=Path, required=True, help="continued if it exists")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--labelled", type=int, default=2, help="labelled samples of a batch")
    parser.add_argument("--rate", type=float, default=6e-3, help="the first learning rate")
    parser.add_argument("--no-fade", dest="fade", action="store_false", help="keep the rate")
    parser.add_argument(
        "--start", type=Path, help="exported .onnx to start from, without a checkpoint"
    )
    parser.add_argument("--bf16", action="store_true", help="for CPUs that have bfloat16")
    run = Run(Plan(**vars(parser.parse_args())))
    if run.plan.checkpoint.exists():
        run.restore()
    run.train()


if __name__ == "__main__":
    main()
