"""On how many images each stage of a build executes the detector."""

from typing import Final, NamedTuple, Self

from quantizer.compile.workload import macs
from quantizer.model.graph import Graph
from quantizer.sensitivity.simulation import NOISE_SAMPLES, SAMPLES

# Multiply-accumulates for an image above which a detector is executed on fewer images: YOLOv8n has
# 4.4 billion, YOLOv5s 8.3, YOLOv12m 30. See docs/results/build-time.md.
LARGE: Final = 8_000_000_000


class ImageCounts(NamedTuple):
    """At most; 0 stands for all images.

    samples: on which sets of layers are compared; noise_samples: of those, layers alone; refined:
    of those, ranges, 0 for none.
    """

    calibrated: int = 0
    equalised: int = 16
    rounded: int = 20
    samples: int = SAMPLES
    noise_samples: int = NOISE_SAMPLES
    refined: int = 6

    @classmethod
    def of(cls, graph: Graph) -> Self:
        """For the detector of this graph, whose shapes must be known."""
        if sum(macs(graph).values()) > LARGE:
            return cls(calibrated=32, equalised=8, rounded=8, samples=4, noise_samples=1, refined=0)
        return cls()
