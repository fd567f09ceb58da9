"""The files of a model as an exporter wrote them."""

from pathlib import Path
from typing import Final

from quantizer.errors import UnsupportedModel

PICKLES: Final = frozenset({".pt", ".pth", ".pkl"})
EXPORT_HINT: Final = (
    "export it to ONNX first (Ultralytics: yolo export model=X.pt format=onnx; "
    "YOLOv5 and YOLOv7: python export.py --weights X.pt --include onnx)"
)


def require_onnx(path: Path) -> None:
    """Raise UnsupportedModel for the name of a pickle, and where there is no file."""
    if path.suffix in PICKLES:
        raise UnsupportedModel(f"{path.name} is a pickle, which is code: {EXPORT_HINT}")
    if not path.is_file():
        raise UnsupportedModel(f"no such file: {path}")


def onnx_files(path: Path) -> list[Path]:
    """The ONNX file and the external data beside it, which exporters name after the file."""
    beside = path.parent.iterdir()
    data = (each for each in beside if each.name.startswith(path.name) and "data" in each.name)
    return [path, *sorted(each for each in data if each.is_file())]
