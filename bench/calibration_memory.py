"""Peak memory of calibrating on 50 and on 500 images, each in a process of its own.

.venv/bin/python bench/calibration_memory.py MODEL --calibration DIR
"""

import argparse
import itertools
import resource
import subprocess
import sys
from pathlib import Path

from quantizer.calibration.images import Images, find_images
from quantizer.calibration.statistics import observe
from quantizer.model.float_model import read_float_model
from quantizer.model.layout import recognise
from quantizer.qdq.bias import averaged_tensors
from quantizer.qdq.placement import plan_placement
from service.engines.cpu import usable_threads
from service.vision.preprocess import PREPROCESS

COUNTS = (50, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count:
        calibrate(arguments.model, arguments.calibration, arguments.count)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    peaks = {}
    for count in COUNTS:
        command = [sys.executable, __file__, *sys.argv[1:], "--count", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peaks[count] = int(done.stdout) / 1024
        print(f"{count} images: peak {peaks[count]:.0f} MiB")
    few, many = (peaks[count] for count in COUNTS)
    print(f"ratio {many / few:.3f}")


def calibrate(model: Path, folder: Path, count: int) -> None:
    """Observe `count` images, going round the folder as often as it takes."""
    float_model = read_float_model(model, 640)
    graph = float_model.graph
    paths = list(itertools.islice(itertools.cycle(find_images(folder)), count))
    how = PREPROCESS[recognise(float_model).preprocess]
    tensors = (tensor for tensor in Images(paths).tensors(640, how) if tensor is not None)
    placement = plan_placement(graph)
    averaged = averaged_tensors(graph, placement)
    observe(graph, placement.tensors, tensors, usable_threads(), averaged)


if __name__ == "__main__":
    main()
