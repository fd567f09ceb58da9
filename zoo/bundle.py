"""The files that come with the package: a detector, calibration images and sample images."""

from pathlib import Path
from typing import Final

from quantizer.versions import sha256_of
from zoo.errors import Distrusted

FOLDER: Final = Path(__file__).parent

NAME: Final = "qyolo-nano"
MODEL: Final = FOLDER / "qyolo_nano" / "qyolo-nano.onnx"
CARD: Final = FOLDER / "qyolo_nano" / "CARD.md"
CHECKSUMS: Final = FOLDER / "qyolo_nano" / "checksums.sha256"
CALIBRATION: Final = FOLDER / "calibration"  # its README.md lists the licences
SAMPLES: Final = FOLDER / "samples"  # likewise


def model() -> Path:
    """The bundled detector; raises Distrusted if its checksum differs from the released one."""
    expected = CHECKSUMS.read_text().split()[0]
    if (digest := sha256_of(MODEL)) != expected:
        raise Distrusted(f"{MODEL} has the SHA-256 {digest}, not {expected}: reinstall qyolo")
    return MODEL
