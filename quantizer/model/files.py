"""What may be handed in as a model: a file that an exporter wrote."""

from pathlib import Path
from typing import Final

from quantizer.errors import UnsupportedModel

PICKLES: Final = frozenset({".pt", ".pth", ".pkl"})
EXPORT_HINT: Final = (
    "export it to ONNX first (Ultralytics: yolo export model=X.pt format=onnx; "
    "YOLOv5 and YOLOv7: python export.py --weights X.pt --include onnx)"
)


def require_onnx(path: Path) -> None:
    """Raises UnsupportedModel for a pickle, whether it is there or not, and for no file at all."""
    if path.suffix in PICKLES:
        raise UnsupportedModel(f"{path.name} is a pickle, which is code: {EXPORT_HINT}")
    if not path.is_file():
        raise UnsupportedModel(f"no such file: {path}")
