"""The 1x1 convolutions that a served graph leaves to the server, which needs them of few anchors.

The folder of a variant holds them as `projections.npz`: weight<i> and bias<i> for the output i of
the graph, which then holds what the convolution reads. Where that is u8, the quantized values, the
weight contains their scale and the bias their zero point.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from service.errors import BadModelFolder
from service.vision.detections import Floats, Ints, Output

FILE: Final = "projections.npz"
# Multiply-accumulates up to which OpenBLAS uses one thread. Others of its threads would wait for
# more work with a core busy, and the next inference would take twice as long.
SINGLE_THREADED: Final = 2**18


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """weight f32[A,F,C] and bias f32[A,C], for A anchors of a cell with F features."""

    weight: Floats
    bias: Floats

    def of(self, features: Output, anchors: Ints) -> Floats:
        """Of some anchors, numbered cell by cell: map[1,H,W,F] -> f32[len(anchors),C]."""
        count, width, channels = self.weight.shape
        cells, positions = np.divmod(anchors, count)
        rows = features.reshape(-1, width)[cells].astype(np.float32)
        values = np.empty((len(rows), channels), np.float32)
        most = max(1, SINGLE_THREADED // (width * channels))
        for position in range(count):
            chosen = np.flatnonzero(positions == position)
            for start in range(0, len(chosen), most):
                part = chosen[start : start + most]
                values[part] = rows[part] @ self.weight[position] + self.bias[position]
        return values


Projections = Mapping[int, Projection]  # by the index of the output


def write_projections(path: Path, projections: Projections) -> None:
    """Write the file of a variant."""
    arrays = {f"weight{index}": each.weight for index, each in projections.items()}
    arrays |= {f"bias{index}": each.bias for index, each in projections.items()}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_projections(path: Path) -> Projections:
    """Read the file of a variant; raises BadModelFolder."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {
                int(name.removeprefix("weight")): Projection(
                    arrays[name], arrays[name.replace("weight", "bias")]
                )
                for name in arrays.files
                if name.startswith("weight")
            }
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as exc:
        raise BadModelFolder(f"{path} cannot be read: {exc}") from exc
