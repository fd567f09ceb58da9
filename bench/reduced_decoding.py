"""What it costs in AP to decode large JPEGs at a half or a quarter of their size.

    .venv/bin/python bench/reduced_decoding.py MODEL --calibration C --images I --annotations A

COCO's photos are no larger than 640 pixels, so MODEL is built for a smaller input, for which they
are large: at 320 they are decoded at a half, at 160 at a quarter. Beside them the same pixels as
PNG, which are decoded whole and then shrunk.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from quantizer.evaluation.accuracy import Evaluation, evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="one that can be built for another size, such as YOLOX")
    for name in ("calibration", "images", "annotations"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--size", type=int, default=320)
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder, whole = Path(scratch) / "model", Path(scratch) / "png"
        command = [sys.executable, "-m", "qyolo", "build", arguments.model, "--out", str(folder)]
        command += ["--size", str(arguments.size), "--calibration", str(arguments.calibration)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        renamed = as_png(arguments.images, arguments.annotations, whole)
        reduced = accuracy(folder, arguments.images, arguments.annotations)
        full = accuracy(folder, whole, renamed)
    print("| input | variant | AP, decoded whole | AP, decoded reduced | difference |")
    print("|---|---|---|---|---|")
    for name, found in reduced.variants.items():
        ap = full.variants[name].ap
        told = f"{ap:.4f} | {found.ap:.4f} | {found.ap - ap:+.4f}"
        print(f"| {arguments.size} | {name} | {told} |")


def accuracy(folder: Path, images: Path, annotations: Path) -> Evaluation:
    """Of every variant."""
    return evaluate(folder, images, annotations, 0, lambda _: None)


def as_png(images: Path, annotations: Path, out: Path) -> Path:
    """The same pixels where nothing can be skipped; the annotations that name them."""
    out.mkdir()
    truth = json.loads(annotations.read_text())
    for record in truth["images"]:
        name = Path(record["file_name"])
        with Image.open(images / name) as photo:
            photo.convert("RGB").save(out / f"{name.stem}.png", compress_level=1)
        record["file_name"] = f"{name.stem}.png"
    (out / "annotations.json").write_text(json.dumps(truth))
    return out / "annotations.json"


if __name__ == "__main__":
    main()
