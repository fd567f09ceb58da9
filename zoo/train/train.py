"""Train qyolo-nano by dense distillation; a run continues from its checkpoint.

pack -> (samples -> teacher -> student -> losses) x steps -> checkpoint with the moving average
"""

import argparse
import copy
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from zoo.train.load_onnx import load_onnx
from zoo.train.losses import Imitation, distillation, supervision
from zoo.train.muon import Muon
from zoo.train.network import Detector, cells, default_device
from zoo.train.samples import Batch, Samples
from zoo.train.teacher import Teacher, load_teacher

WARM_UP: Final = 300  # steps
FINAL_RATE: Final = 0.02  # the last learning rate, as a share of the first
AVERAGE_DECAY: Final = 0.999  # of the moving average, after its warm-up
IMITATION_WEIGHT: Final = 2.0
SUPERVISION_WEIGHT: Final = 0.2
NORM_SAMPLES: Final = 32  # that set the batch norms of a loaded ONNX file
CHECKPOINT_S: Final = 120.0
REPORT_STEPS: Final = 50


@dataclass(frozen=True, slots=True)
class Phase:
    """As long as a number of samples, or as a time where the speed of a shared machine varies."""

    samples: int | None
    minutes: float | None
    size: int
    batch: int
    labelled: int  # labelled samples in each batch
    rate: float
    fade: bool  # whether the rate falls by a cosine until the end of the phase
    plain: bool  # single photos without mosaics: a last phase that looks like use

    def share(self, samples: int, seconds: float) -> float:
        """The share of the phase that so many samples, or so many seconds, are."""
        if self.samples is not None:
            return samples / self.samples
        assert self.minutes is not None
        return seconds / (60 * self.minutes)


class Run:
    """The state of a training run: what its checkpoint holds.

    start: an exported file to start from, with the samples f32[N,3,S,S] that set its batch norms.
    """

    def __init__(self, device: torch.device, start: tuple[Path, Tensor] | None = None) -> None:
        student = load_onnx(*start) if start else Detector()
        self.student = student.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.imitation = Imitation().to(device)
        hidden = [w for w in self.student.parameters() if w.ndim == 4]
        others = [w for w in self.student.parameters() if w.ndim != 4]
        others += self.imitation.parameters()
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(hidden, lr=0.0, momentum=0.95, weight_decay=0.05),
            torch.optim.AdamW(others, lr=0.0, weight_decay=0.0),
        ]
        self.step = 0
        self.samples = 0
        self.phase = ""
        self.progress = 1.0  # of the phase

    def restore(self, checkpoint: Path) -> None:
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        for name in ("student", "average", "imitation"):
            getattr(self, name).load_state_dict(state[name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.samples = state["step"], state["samples"]
        self.phase, self.progress = state["phase"], state["progress"]

    def save(self, checkpoint: Path) -> None:
        state = {
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "imitation": self.imitation.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "samples": self.samples,
            "phase": self.phase,
            "progress": self.progress,
        }
        part = checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(checkpoint)

    def begin(self, phase: Phase) -> None:
        """Continue this phase where it was interrupted; else begin it."""
        if self.phase != repr(phase) or self.progress >= 1:
            self.phase, self.progress = repr(phase), 0.0

    def learn(
        self, batch: Batch, teacher: Teacher, grid: tuple[Tensor, Tensor], bf16: bool
    ) -> Tensor:
        """One step; the three losses, f32[3]: distillation, imitation, labels."""
        taught = teacher.predict(batch.images)
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=bf16):
            output, features = self.student(batch.inputs())
        output = type(output)(*(part.float() for part in output))
        distilled = distillation(output, taught, *grid)
        imitated = self.imitation(features, taught)
        first = type(output)(*(part[: len(batch.boxes)] for part in output))  # the labelled samples
        zero = distilled.new_zeros(())
        labelled = supervision(first, batch.boxes, *grid) if batch.boxes else zero
        loss = distilled + IMITATION_WEIGHT * imitated + SUPERVISION_WEIGHT * labelled
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.optimizers[1].param_groups[0]["params"], 10.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self._update_average()
        self.step += 1
        self.samples += len(batch.images)
        return torch.stack((distilled, imitated, labelled)).detach()

    def set_rate(self, rate: float, fade: bool) -> None:
        rate *= min(1.0, (self.step + 1) / WARM_UP)
        if fade:
            cosine = (1 + math.cos(math.pi * min(1.0, self.progress))) / 2
            rate *= FINAL_RATE + (1 - FINAL_RATE) * cosine
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


def train(
    run: Run,
    phase: Phase,
    batches: Iterator[Batch],
    teacher: Teacher,
    checkpoint: Path,
    bf16: bool = False,
) -> None:
    """Train until the end of the phase; the checkpoint is written every two minutes, and then."""
    device = next(run.student.parameters()).device
    grid = cells(phase.size, device)
    losses: list[Tensor] = []
    saved = reported = last = time.monotonic()
    run.begin(phase)
    while run.progress < 1:
        run.set_rate(phase.rate, phase.fade)
        losses.append(run.learn(next(batches).to(device), teacher, grid, bf16))
        now = time.monotonic()
        run.progress += phase.share(phase.batch, now - last)
        last = now
        if run.progress >= 1 or now - saved > CHECKPOINT_S:
            saved = now
            run.save(checkpoint)
        if len(losses) == REPORT_STEPS:
            distilled, imitated, labelled = torch.stack(losses).mean(dim=0).tolist()
            print(
                f"{run.samples} samples, {run.progress:.1%} of the phase: "
                f"distillation {distilled:.3f}, imitation {imitated:.3f}, "
                f"labels {labelled:.3f}, "
                f"{REPORT_STEPS * phase.batch / (now - reported):.1f} samples/s",
                flush=True,
            )
            reported = now
            losses.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path, help="folder that zoo.train.pack wrote")
    parser.add_argument("--teacher", type=Path, required=True, help="yolox_nano.onnx")
    parser.add_argument("--checkpoint", type=Path, required=True, help="continued if it exists")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--samples", type=int, help="length of the phase in samples")
    length.add_argument("--minutes", type=float, help="length of the phase in minutes")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--labelled", type=int, default=2, help="labelled samples of a batch")
    parser.add_argument("--rate", type=float, default=6e-3, help="the first learning rate")
    parser.add_argument("--no-fade", dest="fade", action="store_false", help="keep the rate")
    parser.add_argument("--plain", action="store_true", help="single photos, as in use")
    parser.add_argument(
        "--start", type=Path, help="exported .onnx to start from, without a checkpoint"
    )
    parser.add_argument("--bf16", action="store_true", help="for processors that have bfloat16")
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 1) - 1),
        help="processes that compose samples",
    )  # fmt: skip
    a = parser.parse_args()
    phase = Phase(a.samples, a.minutes, a.size, a.batch, a.labelled, a.rate, a.fade, a.plain)
    device = default_device()
    samples = Samples(a.pack, a.size, a.plain)
    continued = a.checkpoint.exists()
    start = None
    if a.start and not continued:
        first = next(samples.batches(0, NORM_SAMPLES, phase.labelled, workers=0))
        start = (a.start, first.inputs())
    run = Run(device, start)
    if continued:
        run.restore(a.checkpoint)
    batches = samples.batches(run.samples, phase.batch, phase.labelled, a.workers)
    train(run, phase, batches, load_teacher(a.teacher, a.size, device), a.checkpoint, a.bf16)


if __name__ == "__main__":
    main()
