"""The AP that is lost when large JPEGs are decoded at a half or a quarter of their size.

    .venv/bin/python bench/quantization/reduced_decoding.py MODEL --calibration DIR \\
        --images DIR --annotations FILE [--size 320]

COCO's photos have at most 640 pixels a side, so MODEL is built for a smaller input: for 320 they
are decoded at a half, for 160 at a quarter. The alternative is the same pixels as PNG, which are
decoded at full size and then resized. Prints COCO AP of each variant. MODEL must be one that can be
built for another size, such as YOLOX.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from bench.command_line import dataset_parser, print_header, print_row
from bench.serving import built
from quantizer.evaluation.accuracy import Evaluation, evaluate


def main() -> None:
    parser = dataset_parser(__doc__)
    parser.add_argument("--size", type=int, default=320)
    arguments = parser.parse_args()
    build = (arguments.model, "--size", str(arguments.size), "--calibration", arguments.calibration)
    with TemporaryDirectory() as scratch, built(*build) as folder:
        pngs = Path(scratch) / "png"
        png_annotations = save_as_png(arguments.images, arguments.annotations, pngs)
        reduced = accuracy(folder, arguments.images, arguments.annotations)
        full = accuracy(folder, pngs, png_annotations)
    print_header("input", "variant", "AP, full size", "AP, reduced size", "difference")
    for name, scores in reduced.variants.items():
        ap = full.variants[name].ap
        cells = (f"{ap:.4f}", f"{scores.ap:.4f}", f"{scores.ap - ap:+.4f}")
        print_row(arguments.size, name, *cells)


def accuracy(folder: Path, images: Path, annotations: Path) -> Evaluation:
    return evaluate(folder, images, annotations, 0, lambda _: None)


def save_as_png(images: Path, annotations: Path, out: Path) -> Path:
    """The same pixels as PNG; returns annotations that name them."""
    out.mkdir()
    data_set = json.loads(annotations.read_text())
    for record in data_set["images"]:
        name = Path(record["file_name"])
        with Image.open(images / name) as photo:
            photo.convert("RGB").save(out / f"{name.stem}.png", compress_level=1)
        record["file_name"] = f"{name.stem}.png"
    (out / "annotations.json").write_text(json.dumps(data_set))
    return out / "annotations.json"


if __name__ == "__main__":
    main()
