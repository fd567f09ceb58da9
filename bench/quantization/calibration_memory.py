"""Peak memory of calibration on 50 and on 500 images, each in a process of its own.

    .venv/bin/python bench/quantization/calibration_memory.py MODEL --calibration DIR

The images of DIR are repeated until there are enough. Prints MiB of peak resident memory, and the
ratio, which is about 1 if activations are not kept.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import Final

from bench.command_line import parser_of
from bench.peers.environments import measured
from quantizer.calibration.images import ImageFiles, find_images
from quantizer.calibration.statistics import observe
from quantizer.model.float_model import read_float_model
from quantizer.model.layout import recognise
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.placement import plan_placement
from service.engines.cpu import usable_threads
from service.vision.preprocess import PREPROCESS

COUNTS: Final = (50, 500)
SIZE: Final = 640


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("model", type=Path, help="float YOLO, ONNX")
    parser.add_argument("--calibration", type=Path, required=True, help="folder of images")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count:
        calibrate(arguments.model, arguments.calibration, arguments.count)
        return
    peaks = []
    for count in COUNTS:
        done = measured([sys.executable, __file__, *sys.argv[1:], "--count", str(count)])
        peaks.append(done.peak_mib)
        print(f"{count} images: peak {done.peak_mib:.0f} MiB")
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


def calibrate(model: Path, folder: Path, count: int) -> None:
    """Collect the statistics of `count` images, repeating the folder's."""
    float_model = read_float_model(model, SIZE)
    graph = float_model.graph
    paths = list(itertools.islice(itertools.cycle(find_images(folder)), count))
    preprocess = PREPROCESS[recognise(float_model).preprocess]
    tensors = ImageFiles(paths, SIZE, preprocess).decodable()
    placement = plan_placement(graph)
    averaged = averaged_tensors(graph, placement)
    observe(graph, placement.tensors, tensors, usable_threads(), averaged)


if __name__ == "__main__":
    main()
