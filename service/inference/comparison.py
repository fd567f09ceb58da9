"""Compare a new version of a model with the one that is served, or was.

What the served one finds in some images is kept as a `Record`, so that it can be compared with a
version that comes after it was unloaded.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from service.errors import EngineFailed, NotReady, Refused, ServiceError
from service.inference.backend import InferenceBackend
from service.manifest import Manifest
from service.vision.agreement import MIN_AGREEMENT, agreement
from service.vision.detections import Detections
from service.vision.image import SUFFIXES
from service.vision.postprocess import Query

MAX_IMAGES: Final = 16
FP32: Final = "fp32"

Outcome = Literal["switched", "offered", "refused"]


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a new version must fulfil."""

    min_agreement: float = MIN_AGREEMENT
    new_classes: bool = False  # it may have other classes; their boxes are not compared


@dataclass(frozen=True, slots=True)
class Record:
    """What a version found in some images, each with its boxes."""

    manifest: Manifest
    found: Sequence[tuple[bytes, Detections]] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Agreements, 0..1, of a new version and the served one.

    With fp32: of each with the new version's, if both are builds of the same float model.
    """

    images: int = 0
    boxes: int = 0  # of both
    agreement: float | None = None  # of both; None: nothing could be compared
    served_with_fp32: float | None = None
    new_with_fp32: float | None = None

    def allows(self, least: float) -> bool:
        """Whether the new version may be served.

        Of the same float model, the one that is closer to fp32 is better, however far apart the
        two are: that is what another calibration is for.
        """
        if self.agreement is None:
            return True
        if self.served_with_fp32 is None or self.new_with_fp32 is None:
            return self.agreement >= least
        return self.new_with_fp32 >= min(least, self.served_with_fp32)

    @property
    def reference(self) -> str:
        """What the new version is judged by, and how far it agrees with it."""
        if self.new_with_fp32 is None:
            return f"the served one to {self.agreement:.3f}"
        return f"fp32 to {self.new_with_fp32:.3f}, the served one to {self.served_with_fp32:.3f}"


NOTHING_COMPARED: Final = Comparison()


class Checks:
    """What a new version must pass.

    `images_of`: folders of images for a model, in order of preference. `count` is told what became
    of a new version of a model.
    """

    def __init__(
        self,
        images_of: Callable[[str], Sequence[Path]],
        query: Query,
        count: Callable[[str, Outcome], None],
    ) -> None:
        self.count = count
        self._images_of = images_of
        self._query = query

    def record(self, name: str, served: InferenceBackend) -> Record:
        """The boxes in images of the model; of none where the engine fails. Blocks."""
        found = []
        for path in _some(self._images_of(name)):
            try:
                data = path.read_bytes()
                found.append((data, served.examine(data, self._query)))
            except (EngineFailed, NotReady):
                return Record(served.variants.manifest)
            except (OSError, ServiceError):  # no image
                continue
        return Record(served.variants.manifest, found)

    def judge(self, served: Record, new: InferenceBackend, needed: Requirements) -> Comparison:
        """How a new version compares with the served one; raises Refused if it may not be served.

        Blocks.
        """
        before, after = served.manifest, new.variants.manifest
        if before.class_names != after.class_names:
            if needed.new_classes:
                return NOTHING_COMPARED
            raise Refused(
                f"the new version has other classes ({len(after.class_names)}, the served one "
                f"{len(before.class_names)}): allow them with new_classes=true, or --new-classes"
            )
        compared = _compared(served, new, self._query)
        if not compared.allows(needed.min_agreement):
            raise Refused(
                f"the new version agrees with {compared.reference} on {compared.images} images, "
                f"less than {needed.min_agreement:g}: allow it with min_agreement=0, or "
                "--min-agreement 0"
            )
        return compared


def _compared(served: Record, new: InferenceBackend, query: Query) -> Comparison:
    before, after = served.manifest, new.variants.manifest
    has_fp32 = before.source_sha256 == after.source_sha256 and FP32 in new.variants.names
    pairs: list[tuple[Detections, Detections]] = []
    with_fp32: list[tuple[Detections, Detections, Detections]] = []
    for data, theirs in served.found:
        try:
            ours = new.examine(data, query)
            pairs.append((theirs, ours))
            if has_fp32:
                with_fp32.append((new.examine(data, query, FP32), theirs, ours))
        except ServiceError as exc:
            raise Refused(f"the new version fails on an image: {exc}") from exc
    if not pairs:
        return NOTHING_COMPARED
    both = agreement(pairs)
    return Comparison(
        images=both.images,
        boxes=both.boxes_a + both.boxes_b,
        agreement=round(1 - both.drop, 4),
        served_with_fp32=_agreement([(fp32, theirs) for fp32, theirs, _ in with_fp32]),
        new_with_fp32=_agreement([(fp32, ours) for fp32, _, ours in with_fp32]),
    )


def _agreement(pairs: Sequence[tuple[Detections, Detections]]) -> float | None:
    return round(1 - agreement(pairs).drop, 4) if pairs else None


def _some(folders: Sequence[Path]) -> list[Path]:
    """Images of the first folder that has any."""
    for folder in folders:
        paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
        if paths:
            return random.Random(0).sample(paths, min(MAX_IMAGES, len(paths)))
    return []
