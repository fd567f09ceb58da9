"""Arguments and Markdown tables of the scripts."""

import argparse
from pathlib import Path


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose `--help` is the script's docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def folder_parser(doc: str | None, default: str = "qyolo-nano") -> argparse.ArgumentParser:
    """With the model folder to serve."""
    parser = parser_of(doc)
    parser.add_argument("folder", type=Path, nargs="?", help=f"default: {default}, built here")
    return parser


def server_parser(
    doc: str | None, variant: str | None = "int8", seconds: float | None = None
) -> argparse.ArgumentParser:
    """With the model folder to serve, the variant to request, and the length of a measurement."""
    parser = folder_parser(doc)
    shown = variant or "the folder's default variant"
    parser.add_argument("--variant", default=variant, help=f"default: {shown}")
    if seconds is not None:
        parser.add_argument("--seconds", type=float, default=seconds, help="of each measurement")
    return parser


def dataset_parser(doc: str | None) -> argparse.ArgumentParser:
    """With a float model, calibration images and an annotated data set."""
    parser = parser_of(doc)
    parser.add_argument("model", type=Path, help="float YOLO, ONNX")
    parser.add_argument("--calibration", type=Path, required=True, help="folder of images")
    parser.add_argument("--images", type=Path, required=True, help="images of the annotations")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO JSON")
    return parser


def print_header(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
